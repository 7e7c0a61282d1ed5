// Server-sent events, parsed as the HTML standard says, from text that arrives in any pieces. Pure: no fetch, no timers.

export class SseParser {
  #rest = "";
  #started = false;
  #data = [];
  #event = "";
  #lastId = "";

  /** Return the events that `chunk` completes, as `{event, data, id}`. */
  feed(chunk) {
    this.#rest += chunk;
    if (!this.#started && this.#rest) {
      this.#started = true;
      if (this.#rest.startsWith("\uFEFF")) this.#rest = this.#rest.slice(1);
    }
    const events = [];
    for (let line = this.#nextLine(); line !== null; line = this.#nextLine()) {
      const event = this.#take(line);
      if (event) events.push(event);
    }
    return events;
  }

  #nextLine() {
    const at = this.#rest.search(/[\r\n]/);
    // A CR at the very end may be the first half of a CRLF whose LF is still on its way.
    if (at === -1 || (this.#rest[at] === "\r" && at === this.#rest.length - 1)) return null;
    const line = this.#rest.slice(0, at);
    this.#rest = this.#rest.slice(at + (this.#rest.startsWith("\r\n", at) ? 2 : 1));
    return line;
  }

  #take(line) {
    if (line === "") return this.#dispatch();
    if (line.startsWith(":")) return null;
    const colon = line.indexOf(":");
    const field = colon === -1 ? line : line.slice(0, colon);
    const value = colon === -1 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "data") this.#data.push(value);
    else if (field === "event") this.#event = value;
    else if (field === "id" && !value.includes("\0")) this.#lastId = value;
    return null;
  }

  #dispatch() {
    const event = { event: this.#event || "message", data: this.#data.join("\n"), id: this.#lastId };
    const empty = this.#data.length === 0;
    this.#data = [];
    this.#event = "";
    return empty ? null : event;
  }
}
