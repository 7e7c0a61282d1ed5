// Files dragged onto the page: the zone takes them; files dropped elsewhere are ignored, so the page stays open.

/** Call `take` with the files that are dropped on `zone`. */
export function takeDrops(zone, take) {
  let depth = 0; // number of entered elements, since the zone's children also send enter and leave
  const setDepth = (newDepth) => {
    depth = newDepth;
    zone.classList.toggle("over", depth > 0);
  };
  zone.addEventListener("dragenter", () => setDepth(depth + 1));
  zone.addEventListener("dragleave", () => setDepth(Math.max(depth - 1, 0)));
  zone.addEventListener("drop", (event) => {
    setDepth(0);
    const files = [...event.dataTransfer.files];
    if (files.length) take(files);
  });
  for (const type of ["dragover", "drop"]) addEventListener(type, (event) => event.preventDefault());
}
