// The status page: lists documents with the token that was typed in, which stays in this tab.
const said = document.querySelector("#said");
const rows = document.querySelector("#documents");
const more = document.querySelector("#more");
const field = document.querySelector("#token");
let cursor = "";

async function show({ again }) {
  if (again) {
    cursor = "";
    rows.replaceChildren();
  }
  const answer = await fetch(`/v1/documents?cursor=${encodeURIComponent(cursor)}`, {
    headers: { authorization: `Bearer ${field.value.trim()}` },
  });
  const body = await answer.json();
  if (!answer.ok) {
    said.textContent = body.detail ?? body.title;
    return;
  }
  for (const { latest } of body.documents) rows.append(row(latest));
  said.textContent = `${rows.children.length} 건 / documents`;
  cursor = body.next ?? "";
  more.hidden = !body.next;
}

function row(version) {
  const line = document.createElement("tr");
  const state = version.reason ? `${version.state}: ${version.reason}` : version.state;
  for (const text of [version.title ?? version.file_name, version.version, state, version.passages, version.effective_from ?? ""]) {
    const cell = document.createElement("td");
    cell.textContent = text;
    line.append(cell);
  }
  if (version.state === "failed") line.classList.add("failed");
  return line;
}

document.querySelector("#sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  show({ again: true }).catch(() => (said.textContent = "응답이 없습니다 / no answer"));
});
more.addEventListener("click", () => show({ again: false }));
