// A list that is loaded page by page: drafts, documents, jobs.

import { el } from "./dom.js";
import { say } from "./i18n.js";
import { troubleLine } from "./trouble_line.js";

export class PagedList {
  #list;
  #more;
  #note;
  #load;
  #row;
  #emptyKey;
  #countKey;
  #onError;
  #requestCount = 0;

  /**
   * `load(cursor)` returns `{items, next}`, `row(item)` an element. `emptyKey` is the text without items, `countKey` the
   * text with their number, if any. `onError` is called with the errors of `load`.
   */
  constructor(section, { load, row, emptyKey, countKey = null, onError }) {
    this.#list = section.querySelector("ul.cards");
    this.#more = section.querySelector("button.more");
    this.#note = section.querySelector(".note");
    this.#load = load;
    this.#row = row;
    this.#emptyKey = emptyKey;
    this.#countKey = countKey;
    this.#onError = onError;
  }

  /** Load the list from its beginning. */
  async show() {
    this.#list.replaceChildren();
    await this.#page("");
  }

  async #page(cursor) {
    const number = ++this.#requestCount;
    this.#more.hidden = true;
    this.#note.replaceChildren(say(el("p", { class: "muted" }), "loading"));
    try {
      const { items, next } = await this.#load(cursor);
      if (number !== this.#requestCount) return; // the list was loaded again
      this.#list.append(...items.map((item) => this.#row(item)));
      const count = this.#list.children.length;
      const key = count ? this.#countKey : this.#emptyKey;
      this.#note.replaceChildren(...(key ? [say(el("p", { class: "muted" }), key, { count })] : []));
      this.#more.hidden = next === null;
      this.#more.onclick = () => void this.#page(next);
    } catch (error) {
      if (number === this.#requestCount) this.#note.replaceChildren(troubleLine(error));
      this.#onError(error);
    }
  }
}
