// A list that is asked for page by page: drafts, documents, jobs.

import { el } from "./dom.js";
import { say } from "./i18n.js";
import { troubleLine } from "./trouble_line.js";

export class PagedList {
  #list;
  #more;
  #note;
  #load;
  #row;
  #empty;
  #shown;
  #failed;
  #latest = 0;

  /**
   * `load(cursor)` returns `{items, next}`; `row(item)` an element; `empty` is said where there is nothing, and `shown`,
   * where given, of how many items there are; `failed` hears errors.
   */
  constructor(section, { load, row, empty, shown = null, failed }) {
    this.#list = section.querySelector("ul.cards");
    this.#more = section.querySelector("button.more");
    this.#note = section.querySelector(".note");
    this.#load = load;
    this.#row = row;
    this.#empty = empty;
    this.#shown = shown;
    this.#failed = failed;
  }

  /** Ask from the beginning. */
  async show() {
    this.#list.replaceChildren();
    await this.#page("");
  }

  async #page(cursor) {
    const mine = ++this.#latest;
    this.#more.hidden = true;
    this.#note.replaceChildren(say(el("p", { class: "muted" }), "loading"));
    try {
      const { items, next } = await this.#load(cursor);
      if (mine !== this.#latest) return; // asked anew meanwhile
      this.#list.append(...items.map((item) => this.#row(item)));
      const count = this.#list.children.length;
      const said = count ? this.#shown : this.#empty;
      this.#note.replaceChildren(...(said ? [say(el("p", { class: "muted" }), said, { count })] : []));
      this.#more.hidden = next === null;
      this.#more.onclick = () => void this.#page(next);
    } catch (error) {
      if (mine === this.#latest) this.#note.replaceChildren(troubleLine(error));
      this.#failed(error);
    }
  }
}
