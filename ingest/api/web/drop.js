// Files dragged onto the page: the zone takes them, and beside it they do not make the browser leave the page.

/** Hand the files that are dropped on `zone` to `take`. */
export function takeDrops(zone, take) {
  let inside = 0; // enter and leave also come from the zone's children
  const mark = (change) => {
    inside = change;
    zone.classList.toggle("over", inside > 0);
  };
  zone.addEventListener("dragenter", () => mark(inside + 1));
  zone.addEventListener("dragleave", () => mark(Math.max(inside - 1, 0)));
  zone.addEventListener("drop", (event) => {
    mark(0);
    const files = [...event.dataTransfer.files];
    if (files.length) take(files);
  });
  for (const type of ["dragover", "drop"]) addEventListener(type, (event) => event.preventDefault());
}
