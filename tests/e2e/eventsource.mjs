// Follows answers with the npm package `eventsource`, a client that other people wrote, and prints what it gets.
// node eventsource.mjs <folder with node_modules> <url> <token> <answer id>…   One JSON line an event; "closed" at an end.
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [folder, url, token, ...answers] = process.argv.slice(2);
const found = createRequire(join(folder, "package.json")).resolve("eventsource");
const { EventSource } = await import(pathToFileURL(found));
const names = ["accepted", "queued", "sources", "token", "citation", "notice", "done", "error"];
const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

for (const answer of answers) {
  const signed = (address, init) =>
    fetch(address, { ...init, headers: { ...init.headers, Authorization: `Bearer ${token}` } });
  const source = new EventSource(`${url}/v1/answers/${answer}/events`, { fetch: signed });
  for (const name of names) {
    source.addEventListener(name, (event) => {
      if (event.data !== undefined) say({ answer, name, id: event.lastEventId, data: event.data });
    });
  }
  source.addEventListener("error", (event) => {
    if (event.data !== undefined) return;
    if (source.readyState === EventSource.CLOSED) say({ answer, name: "closed", id: "", data: String(event.code) });
    else say({ answer, name: "lost", id: "", data: "" });
  });
}
