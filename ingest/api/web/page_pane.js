// One page of the original: its picture, or the text that was read of it.

import { el } from "./dom.js";
import { say, t } from "./i18n.js";
import { troubleOf } from "./trouble.js";

export class PagePane {
  #place;
  #load;
  #address = null;
  #asked = null;

  /** `load(number, signal)` brings a page as `api.page` does. */
  constructor(place, load) {
    this.#place = place;
    this.#load = load;
  }

  /** Show a page; return how many there are, or null where it cannot be shown. */
  async show(number) {
    this.#asked?.abort();
    const mine = (this.#asked = new AbortController());
    this.#place.setAttribute("aria-busy", "true");
    try {
      const page = await this.#load(number, mine.signal);
      this.#put(page.picture ? this.#picture(page.picture, number) : el("pre", { class: "text", tabindex: "0" }, page.text));
      if (page.isIncomplete) this.#place.prepend(say(el("p", { class: "muted" }), "picture_incomplete"));
      return page.pages;
    } catch (error) {
      if (mine.signal.aborted) return null;
      const { key, values } = troubleOf(error);
      this.#put(say(el("p", { class: "muted" }), "page_missing", { why: t(key, values) }));
      return null;
    } finally {
      if (mine === this.#asked) this.#place.setAttribute("aria-busy", "false");
    }
  }

  clear() {
    this.#asked?.abort();
    this.#put("");
  }

  #put(content) {
    const old = this.#address;
    this.#address = content instanceof HTMLImageElement ? content.src : null;
    this.#place.replaceChildren(content);
    if (old) URL.revokeObjectURL(old);
  }

  #picture(blob, page) {
    const picture = el("img", { src: URL.createObjectURL(blob) });
    say(picture, "page_picture", { page }, "i18nAlt");
    return picture;
  }
}
