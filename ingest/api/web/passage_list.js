// A version's passages in the document's order, as customers see them. They are loaded as the person scrolls; those of
// PDFs and images are beside the pictures of their pages. Counts the passages that have been on the screen.

import { el } from "./dom.js";
import { say } from "./i18n.js";
import { Lanes } from "./lanes.js";
import { renderPassage } from "./render.js";
import { utf16Offset } from "./text.js";
import { troubleLine, troubleText } from "./trouble_line.js";

const WITH_PICTURES = ["pdf", "png", "jpeg", "tiff"];
const PAGE_TITLES = { xlsx: "place_sheet", pptx: "place_slide", ...Object.fromEntries(WITH_PICTURES.map((format) => [format, "place_page"])) };
const BELOW_BAR = "-128px 0px 0px 0px"; // the bar with the approve button covers the top of the screen

export class PassageList {
  #load;
  #draw;
  #onSeen;
  #onTrouble;
  #pages = el("div", { class: "pages" });
  #note = el("div");
  #more = say(el("button", { type: "button", class: "secondary", hidden: true, onclick: () => void this.#next() }), "more");
  #moreObserver = new IntersectionObserver(([{ isIntersecting }]) => isIntersecting && void this.#next(), { rootMargin: "800px" });
  #partObserver = new IntersectionObserver((entries) => this.#markSeen(entries), { rootMargin: BELOW_BAR });
  #frameObserver = new IntersectionObserver((entries) => entries.forEach((entry) => this.#updateFrame(entry)), { rootMargin: "50%" });
  #drawing = new Lanes(2);
  #shown = null; // the state of the version that is shown

  /**
   * `load(cursor)` returns `{passages, next}`, `draw(page, signal)` the result of `api.page`. `onSeen` is called when the
   * number of passages that have been on the screen has changed, `onTrouble` with the errors of `load`.
   */
  constructor(place, { load, draw, onSeen, onTrouble }) {
    place.append(this.#pages, this.#note, this.#more);
    this.#load = load;
    this.#draw = draw;
    this.#onSeen = onSeen;
    this.#onTrouble = onTrouble;
  }

  /** Show the passages of a version from the first one on. */
  show({ format }) {
    this.clear();
    this.#shown = {
      format,
      cursor: 0,
      loading: null,
      items: new Map(), // passage number → `{passage, item}`
      changes: new Map(), // passage number → changes
      unseen: new Map(), // passage number → its parts that have not been on the screen
      numbers: new WeakMap(), // part → passage number
      frames: new WeakMap(), // frame of a picture → `{page, controller}`
      page: 0, // the last one that was added
      list: null, // of that page's passages
      pageCount: 0,
    };
    this.#moreObserver.observe(this.#more);
    return this.#next();
  }

  clear() {
    for (const observer of [this.#moreObserver, this.#partObserver, this.#frameObserver]) observer.disconnect();
    this.#shown = null;
    this.#more.hidden = true;
    this.#pages.replaceChildren();
    this.#note.replaceChildren();
  }

  /** The number of passages that have been on the screen from their beginning to their end. */
  get seenCount() {
    return this.#shown === null ? 0 : this.#shown.items.size - this.#shown.unseen.size;
  }

  /** Mark the changes (`api.changes`); a passage with changes counts as not yet seen. */
  mark(changes) {
    const byNumber = Map.groupBy(changes, ({ n }) => n);
    this.#shown.changes = byNumber;
    for (const n of byNumber.keys()) if (this.#shown.items.has(n)) this.#paint(n);
    this.#onSeen();
  }

  /** Load the passages up to number `n` and focus that one. */
  async focusPassage(n) {
    const shown = this.#shown;
    while (shown === this.#shown && !shown.items.has(n) && (await this.#next()));
    const item = shown.items.get(n)?.item;
    item?.scrollIntoView({ block: "center" });
    item?.focus({ preventScroll: true });
  }

  /** Load the next passages; return whether that succeeded. */
  #next() {
    const shown = this.#shown;
    if (shown === null || shown.cursor === null) return false;
    shown.loading ??= this.#read(shown).finally(() => (shown.loading = null));
    return shown.loading;
  }

  async #read(shown) {
    this.#note.replaceChildren(say(el("p", { class: "muted" }), "loading"));
    try {
      const { passages, next } = await this.#load(shown.cursor);
      if (shown !== this.#shown) return false; // another version was opened
      shown.cursor = next;
      for (const passage of passages) this.#add(passage);
      this.#note.replaceChildren();
      this.#more.hidden = next === null;
      this.#moreObserver.unobserve(this.#more); // observing it again reports whether the button is still near
      this.#moreObserver.observe(this.#more);
      this.#addLastPages();
      this.#onSeen();
      return true;
    } catch (error) {
      if (shown !== this.#shown) return false;
      this.#note.replaceChildren(troubleLine(error));
      this.#more.hidden = false;
      this.#onTrouble(error);
      return false;
    }
  }

  #add(passage) {
    const { page, n } = passage;
    const shown = this.#shown;
    if (shown.list === null || (page !== null && page !== shown.page)) this.#addPages(page ?? 0);
    const item = el("li", { class: "passage", id: `passage-${n}`, tabindex: "-1" });
    shown.list.append(item);
    shown.items.set(n, { passage, item });
    this.#paint(n);
  }

  /** Add page `page`, and before it the pages with a picture on which no passage begins. */
  #addPages(page) {
    const shown = this.#shown;
    if (WITH_PICTURES.includes(shown.format)) {
      for (let empty = shown.page + 1; empty < page; empty += 1) this.#addEmptyPage(empty);
    }
    this.#addPage(page);
  }

  #addEmptyPage(page) {
    this.#addPage(page);
    this.#shown.list.replaceWith(say(el("p", { class: "muted" }), "page_without"));
  }

  #addPage(page) {
    const shown = this.#shown;
    shown.page = page;
    shown.list = el("ol", { class: "passages" });
    const key = page ? PAGE_TITLES[shown.format] : undefined;
    const frame = WITH_PICTURES.includes(shown.format) ? el("div", { class: "picture" }) : null;
    this.#pages.append(el("section", { class: "page" }, key ? say(el("h4"), key, { page }) : null, frame, shown.list));
    if (frame === null) return;
    shown.frames.set(frame, { page, controller: null });
    this.#frameObserver.observe(frame);
  }

  /** Add the pages with a picture behind the last one on which a passage begins. */
  #addLastPages() {
    const { cursor, pageCount } = this.#shown;
    if (cursor !== null) return;
    while (this.#shown.page < pageCount) this.#addEmptyPage(this.#shown.page + 1);
  }

  #paint(n) {
    const { items, changes, unseen, numbers } = this.#shown;
    const { passage, item } = items.get(n);
    const { text, section, language } = passage;
    const marks = (changes.get(n) ?? []).map(({ start, end, removed }) => ({
      start: utf16Offset(text, start),
      end: utf16Offset(text, end),
      removed: removed.replace(/^\|\s*|\s*\|$/g, ""), // without the bars around a table's row
    }));
    const heading = say(el(PAGE_TITLES[this.#shown.format] ? "h5" : "h4"), "passage_n", { n }); // below its page's title
    const body = el("div", { class: "passage-text", lang: language }, ...renderPassage(text, marks, "ins"));
    const end = el("span");
    item.replaceChildren(heading, el("p", { class: "muted" }, section), body, end);
    // Its beginning, its end, and the right edge of each table, which may be visible only after scrolling.
    const parts = new Set([heading, ...body.querySelectorAll("tr:first-child > :last-child"), end]);
    unseen.set(n, parts);
    for (const part of parts) {
      numbers.set(part, n);
      this.#partObserver.observe(part);
    }
  }

  #markSeen(entries) {
    if (this.#shown === null) return;
    const { unseen, numbers } = this.#shown;
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      this.#partObserver.unobserve(target);
      const parts = unseen.get(numbers.get(target));
      parts?.delete(target);
      if (parts?.size === 0) unseen.delete(numbers.get(target));
    }
    this.#onSeen();
  }

  /** Draw a page that comes near the screen, and remove the picture of one that is far from it. */
  #updateFrame({ target, isIntersecting }) {
    const frame = this.#shown?.frames.get(target);
    if (frame === undefined) return;
    frame.controller?.abort();
    frame.controller = null;
    target.replaceChildren();
    if (!isIntersecting) return;
    frame.controller = new AbortController();
    void this.#drawIn(target, frame.page, frame.controller.signal);
  }

  async #drawIn(frame, page, signal) {
    const shown = this.#shown;
    frame.setAttribute("aria-busy", "true");
    try {
      const { pages, picture, isIncomplete } = await this.#drawing.run(() => this.#draw(page, signal), signal);
      if (shown !== this.#shown || signal.aborted) return;
      const img = say(el("img", { src: URL.createObjectURL(picture) }), "page_picture", { page }, "i18nAlt");
      img.addEventListener("load", () => {
        URL.revokeObjectURL(img.src);
        frame.style.aspectRatio = `${img.naturalWidth} / ${img.naturalHeight}`; // keeps its size without the picture
      });
      frame.replaceChildren(img, isIncomplete ? say(el("p", { class: "muted" }), "picture_incomplete") : "");
      shown.pageCount = pages;
      this.#addLastPages();
    } catch (error) {
      if (signal.aborted) return;
      const { key, values } = troubleText(error);
      frame.replaceChildren(say(el("p", { class: "muted" }), "page_missing", { why: { said: key, values } }));
    } finally {
      frame.removeAttribute("aria-busy");
    }
  }
}
