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
  #origin = null;
  #latest = 0;

  /** `load(answerId, n)` brings the passage. */
  constructor(dialog, load) {
    this.#dialog = dialog;
    this.#load = load;
    this.#title = dialog.querySelector("h2");
    this.#body = dialog.querySelector(".sheet-body");
    dialog.querySelector("[data-close]").addEventListener("click", () => dialog.close());
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close()); // the backdrop of a sheet
    dialog.addEventListener("close", () => this.#closed());
    document.addEventListener("keydown", (event) => this.#escape(event));
    BESIDE.addEventListener("change", () => this.#show({ again: true }));
  }

  /** Open the passage of `source`, with the `quotes` highlighted; closing gives the focus back to `marker`. */
  async open({ answerId, source, quotes, marker }) {
    this.#origin?.removeAttribute("data-open");
    this.#origin = marker;
    marker.setAttribute("data-open", "");
    this.#title.textContent = source.title || source.document_id;
    this.#title.lang = languageOf(this.#title.textContent);
    this.#body.replaceChildren(say(el("p", { class: "muted" }), "passage_loading"));
    this.#show();
    this.#title.focus({ preventScroll: true });
    const mine = ++this.#latest;
    const content = await this.#content(answerId, source, quotes, () => this.open({ answerId, source, quotes, marker }));
    if (mine !== this.#latest) return; // another one was opened meanwhile
    this.#body.replaceChildren(...content);
    this.#body.scrollTop = 0;
    this.#body.querySelector("mark")?.scrollIntoView({ block: "center" });
  }

  close() {
    if (this.#dialog.open) this.#dialog.close();
  }

  async #content(answerId, source, quotes, again) {
    try {
      const passage = await this.#load(answerId, source.n);
      return [facts(passage), ...this.#text(passage.text, quotes)];
    } catch (error) {
      if (error instanceof Problem && error.status === 404) {
        return [facts(source), say(el("p", { class: "notice" }), "passage_withdrawn"), ...quotes.map(quoted)];
      }
      const retry = say(el("button", { type: "button", class: "secondary", onclick: again }), "retry");
      return [say(el("p", { role: "alert" }), "passage_failed"), retry];
    }
  }

  #text(text, quotes) {
    const found = quotes.map((quote) => ({ quote, at: locate(text, quote) }));
    const missing = [...new Set(found.filter(({ at }) => !at).map(({ quote }) => quote))];
    const marks = found.map(({ at }) => at).filter(Boolean);
    const body = el("div", { class: "passage-text", lang: languageOf(text) }, ...renderPassage(text, marks));
    const hint = marks.length ? [say(el("p", { class: "muted" }), "passage_marked")] : [];
    return [...missing.map(quoted), ...hint, body];
  }

  #show({ again = false } = {}) {
    if (again && !this.#dialog.open) return;
    if (this.#dialog.open) {
      if (this.#dialog.matches(":modal") !== BESIDE.matches) return;
      const origin = this.#origin;
      this.#origin = null; // reopened in the other way: the focus stays inside
      this.#dialog.close();
      this.#origin = origin;
    }
    if (BESIDE.matches) this.#dialog.show();
    else this.#dialog.showModal();
    document.body.classList.toggle("beside", BESIDE.matches);
    this.#origin?.scrollIntoView({ block: "nearest" }); // the conversation has become narrower and longer
  }

  #closed() {
    if (this.#dialog.open) return; // reopened in the other way
    document.body.classList.remove("beside");
    const origin = this.#origin;
    this.#origin = null;
    this.#latest += 1;
    if (!origin) return;
    origin.removeAttribute("data-open");
    const same = origin.isConnected ? origin : document.querySelector(`[data-cite="${origin.dataset.cite}"]`);
    (same ?? document.getElementById("question")).focus();
  }

  #escape(event) {
    if (event.key !== "Escape" || event.isComposing || !this.#dialog.open || document.querySelector("dialog:modal")) return;
    this.#dialog.close();
  }
}

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

function quoted(quote) {
  return el("figure", {}, say(el("figcaption", { class: "muted" }), "passage_quote"), el("blockquote", { lang: languageOf(quote) }, quote));
}
