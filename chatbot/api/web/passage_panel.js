// The passage behind a citation: a panel beside the conversation, or a sheet over it on a phone.

import { Problem } from "./api.js";
import { el } from "./dom.js";
import { say, sayMoment } from "./i18n.js";
import { renderPassage } from "./render.js";
import { languageOf, locate, sectionWithin } from "./text.js";

const BESIDE = matchMedia("(min-width: 64rem)");

export class PassagePanel {
  #dialog;
  #load;
  #title;
  #body;
  #origin = null; // the marker or source that opened the panel
  #openings = 0; // the content of an earlier opening is dropped

  /** `load(answerId, n)` resolves to the passage. */
  constructor(dialog, load) {
    this.#dialog = dialog;
    this.#load = load;
    this.#title = dialog.querySelector("h2");
    this.#body = dialog.querySelector(".sheet-body");
    dialog.querySelector("[data-close]").addEventListener("click", () => dialog.close());
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close()); // the backdrop of a sheet
    dialog.addEventListener("close", () => this.#closed());
    document.addEventListener("keydown", (event) => this.#closeOnEscape(event));
    BESIDE.addEventListener("change", () => this.#reopen());
  }

  /** Show the passage of `source` with highlighted `quotes`; closing returns the focus to `marker`. */
  async open({ answerId, source, quotes, marker }) {
    this.#origin?.removeAttribute("data-open");
    this.#origin = marker;
    marker.setAttribute("data-open", "");
    this.#title.textContent = source.title || source.document_id;
    this.#title.lang = languageOf(this.#title.textContent);
    this.#body.replaceChildren(say(el("p", { class: "muted" }), "passage_loading"));
    this.#show();
    this.#title.focus({ preventScroll: true });
    this.#openings += 1;
    const opening = this.#openings;
    const retry = () => this.open({ answerId, source, quotes, marker });
    const content = await this.#content(answerId, source, quotes, retry);
    if (opening !== this.#openings) return;
    this.#body.replaceChildren(...content);
    this.#body.scrollTop = 0;
    this.#body.querySelector("mark")?.scrollIntoView({ block: "center" });
  }

  close() {
    if (this.#dialog.open) this.#dialog.close();
  }

  async #content(answerId, source, quotes, retry) {
    try {
      const passage = await this.#load(answerId, source.n);
      return [facts(passage), ...this.#highlighted(passage.text, quotes)];
    } catch (error) {
      if (error instanceof Problem && error.status === 404) {
        return [facts(source), say(el("p", { class: "notice" }), "passage_withdrawn"), ...quotes.map(quoteView)];
      }
      const button = say(el("button", { type: "button", class: "secondary", onclick: retry }), "retry");
      return [say(el("p", { role: "alert" }), "passage_failed"), button];
    }
  }

  /** Return the text with the quotes highlighted, after the quotes that it does not contain. */
  #highlighted(text, quotes) {
    const places = quotes.map((quote) => locate(text, quote));
    const missing = new Set(quotes.filter((_, n) => !places[n]));
    const marks = places.filter(Boolean);
    const body = el("div", { class: "passage-text", lang: languageOf(text) }, ...renderPassage(text, marks));
    const hint = marks.length ? [say(el("p", { class: "muted" }), "passage_marked")] : [];
    return [...[...missing].map(quoteView), ...hint, body];
  }

  /** Show an open panel as the width of the window requires. */
  #reopen() {
    if (this.#dialog.open) this.#show();
  }

  #show() {
    if (this.#dialog.open) {
      const isBeside = !this.#dialog.matches(":modal");
      if (isBeside === BESIDE.matches) return;
      const origin = this.#origin;
      this.#origin = null; // so that closing leaves the focus inside
      this.#dialog.close();
      this.#origin = origin;
    }
    if (BESIDE.matches) this.#dialog.show();
    else this.#dialog.showModal();
    document.body.classList.toggle("beside", BESIDE.matches);
    this.#origin?.scrollIntoView({ block: "nearest" }); // the conversation is narrower and longer now
  }

  #closed() {
    if (this.#dialog.open) return; // `#show` has opened it again
    document.body.classList.remove("beside");
    const origin = this.#origin;
    this.#origin = null;
    this.#openings += 1;
    if (!origin) return;
    origin.removeAttribute("data-open");
    // A repaint of the answer replaces its markers.
    const marker = origin.isConnected ? origin : document.querySelector(`[data-cite="${origin.dataset.cite}"]`);
    (marker ?? document.getElementById("question")).focus();
  }

  #closeOnEscape(event) {
    if (event.key !== "Escape" || event.isComposing || !this.#dialog.open || document.querySelector("dialog:modal")) return;
    this.#dialog.close();
  }
}

/** Return the list of the passage's section, page, date, version and link. */
function facts(passage) {
  const list = el("dl");
  const add = (key, value) => list.append(el("div", {}, say(el("dt"), key), value));
  const section = sectionWithin(passage.section, passage.title);
  if (section) add("passage_section", el("dd", { lang: languageOf(section) }, section));
  if (passage.page) add("passage_page", el("dd", {}, String(passage.page)));
  if (passage.effective_from) add("passage_from", sayMoment(el("dd"), { day: passage.effective_from }));
  add("passage_version", el("dd", {}, String(passage.version)));
  if (passage.link) add("passage_link", el("dd", {}, publicPage(passage.link)));
  return list;
}

const publicPage = (link) => say(el("a", { href: link, target: "_blank", rel: "noopener noreferrer" }), "passage_link_open");

function quoteView(quote) {
  return el("figure", {}, say(el("figcaption", { class: "muted" }), "passage_quote"), el("blockquote", { lang: languageOf(quote) }, quote));
}
