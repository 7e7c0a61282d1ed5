// One answer on the page: its status while it runs, its text with citation markers, and how it ended.

import { el, icon } from "./dom.js";
import { say, sayMoment, t } from "./i18n.js";
import { renderAnswer } from "./render.js";
import { languageOf, leafOf, sectionWithin, speakable } from "./text.js";

const CHECK = "M5 12.5l4.5 4.5L19 7.5";
const MOST_FOLLOW_UPS = 3;
const INFO = "M12 11v6M12 7.5v.5M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18z";

// With the other reasons the text needs no explanation: it is a complete answer, or says why there is none.
export const isCutShort = (reason) => ["length", "budget", "cancelled", "error", "missing"].includes(reason);

/** Return the notices that matter to a customer; `reason` is how the answer ended, or null while it runs. */
export function noticesFor(notices, reason = null) {
  const hidden = ["model_switched", "not_resumable"]; // about the servers
  if (reason === "handoff") hidden.push("degraded"); // the text of a hand-off says it already
  return notices.filter(({ code }) => !hidden.includes(code));
}

/** Return at most three `sources` in a language: other sections of the `cited` documents, each section once. */
export function followUps(cited, sources, language) {
  const documents = new Set(cited.map(documentOf));
  const sections = new Set(["", ...cited.map(leafOf)]);
  const others = [];
  for (const source of sources) {
    const section = leafOf(source);
    if (!documents.has(documentOf(source)) || languageOf(section) !== language || sections.has(section)) continue;
    sections.add(section);
    others.push(source);
  }
  return others.slice(0, MOST_FOLLOW_UPS);
}

export class AnswerView {
  #openPassage;
  #text = "";
  #sources = [];
  #citations = [];
  #related = [];
  #frame = 0;
  #body = el("div", { class: "body" });
  #status = el("p", { class: "status" }, el("span", { class: "dots", "aria-hidden": "true" }), el("span"));
  #notices = el("div");
  #end = el("div");
  #sourceList = el("div");
  #actions = el("div");
  #followUps = el("div", { class: "follow-ups" });

  /** `openPassage({answerId, source, quotes, marker})` is called when a marker or a source is clicked. */
  constructor(openPassage) {
    this.#openPassage = openPassage;
    this.answerId = null;
    const author = say(el("h2", { class: "who" }), "assistant");
    const parts = [this.#notices, this.#body, this.#status, this.#end, this.#sourceList, this.#actions, this.#followUps];
    this.element = el("article", { class: "answer" }, author, ...parts);
  }

  get text() {
    return this.#text;
  }

  /** Show the status `key` of a running answer; null hides the status. */
  showStatus(key, values = {}) {
    this.#status.hidden = !key;
    this.element.setAttribute("aria-busy", String(Boolean(key)));
    if (key) say(this.#status.lastElementChild, key, values);
  }

  setSources(items) {
    this.#sources = items;
  }

  append(text) {
    this.#text += text;
    this.#paintSoon();
  }

  addCitation(citation) {
    this.#citations.push(citation);
    this.#paintSoon();
  }

  /** Set the passages that may help without an answer; they are shown at its end. */
  setRelated(items) {
    this.#related = items;
  }

  addNotice({ code, text }) {
    const content = el("span", {}, say(el("strong"), "notice"), " ", el("span", { lang: languageOf(text) }, text));
    this.#notices.append(el("p", { class: "notice", "data-code": code }, icon(INFO), content));
  }

  /** Show the end of the answer; `reason` comes from the `done` event or the history. */
  finish(reason, { grounded } = {}) {
    this.showStatus(null);
    this.paint();
    this.#showSources();
    if (reason === "stop") this.#showGrounding(grounded);
    if (!isCutShort(reason)) return;
    this.#end.append(el("p", { class: "ending", "data-reason": reason }, icon(INFO), say(el("span"), `end_${reason}`)));
  }

  /** Show the failure of the answer: `box` explains it and offers a way out. */
  fail(box) {
    this.showStatus(null);
    this.paint();
    this.#showSources();
    this.#end.replaceChildren(box);
  }

  /** Move the keyboard's focus to the answer. */
  focus() {
    this.element.tabIndex = -1;
    this.element.focus({ preventScroll: true });
  }

  /** Show the row of buttons below the answer. */
  showActions(actions) {
    this.#actions.replaceChildren(actions);
  }

  /** Suggest questions about other sections of the cited documents; `ask(text)` asks one. */
  suggestFollowUps(ask) {
    const sources = followUps(this.#citedSources(), this.#sources, document.documentElement.lang);
    const questions = sources.map((source) => t("follow_up", { title: source.title, section: leafOf(source) }));
    const button = (text) => el("button", { type: "button", class: "secondary", onclick: () => ask(text) }, text);
    const list = el("ul", { class: "examples" }, ...questions.map((text) => el("li", {}, button(text))));
    this.#followUps.replaceChildren(...(questions.length ? [say(el("h3"), "follow_ups"), list] : []));
  }

  /** The answer as plain text with its sources, for the clipboard. */
  get plainText() {
    const nameOf = (source) => [source.title, leafOf(source)].filter(Boolean).join(" · ");
    const sources = this.#citedSources().map((source) => `[${source.n}] ${nameOf(source)}`);
    const list = sources.length ? ["", t("sources"), ...sources] : [];
    return [this.#text.replaceAll("**", "").trim(), ...list].join("\n");
  }

  /** The number of cited documents. */
  get citedCount() {
    return new Set(this.#citedSources().map(documentOf)).size;
  }

  /** Return the cited sources, sorted by number. */
  #citedSources() {
    const numbers = [...new Set(this.#citations.map(({ n }) => n))].sort((a, b) => a - b);
    return numbers.map((n) => this.#source(n));
  }

  #showGrounding(grounded) {
    if (grounded === true && this.citedCount) this.#end.append(el("p", { class: "stamp" }, icon(CHECK), say(el("span"), "grounded")));
    if (grounded === false) this.#end.append(el("p", { class: "stamp" }, icon(INFO), say(el("span"), "not_grounded")));
  }

  #paintSoon() {
    // At most one paint per frame, even if tokens arrive faster.
    this.#frame ||= requestAnimationFrame(() => this.paint());
  }

  paint() {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    this.#body.lang = languageOf(this.#text);
    renderAnswer(this.#body, this.#text, this.#markers(), (marker) => this.#markerButton(marker));
  }

  /** Return one marker for each source and place, with all of its quotes. */
  #markers() {
    const markers = new Map();
    for (const { n, end, quote } of this.#citations) {
      const key = `${n}@${end}`;
      const marker = markers.get(key) ?? { key, n, end, quotes: [] };
      marker.quotes.push(quote);
      markers.set(key, marker);
    }
    return [...markers.values()];
  }

  #markerButton({ key, n, quotes }) {
    const source = this.#source(n);
    const button = el("button", { type: "button", class: "cite", "data-cite": key, "aria-haspopup": "dialog" }, String(n));
    button.addEventListener("click", () => this.#open(source, quotes, button));
    return say(button, "cite", { n, title: source.title }, "i18nLabel");
  }

  #source(n) {
    const source = this.#sources.find((candidate) => candidate.n === n);
    return source ?? { section: "", ...this.#citations.find((citation) => citation.n === n), title: "" };
  }

  #open(source, quotes, marker) {
    this.#openPassage({ answerId: this.answerId, source, quotes, marker });
  }

  #showSources() {
    this.#sourceList.replaceChildren();
    const cited = this.#citedSources();
    const others = this.#sources.filter((source) => !cited.some(({ n }) => n === source.n));
    if (this.#related.length) return this.#sourceList.append(say(el("h3"), "related"), this.#list(this.#related));
    if (cited.length) this.#sourceList.append(say(el("h3"), "sources"), this.#list(cited));
    if (others.length) {
      const summary = say(el("summary"), "sources_other", { count: new Set(others.map(documentOf)).size });
      this.#sourceList.append(el("details", {}, summary, this.#list(others)));
    }
  }

  /** Return the documents of `sources`, each with its passages. */
  #list(sources) {
    const documents = [...new Set(sources.map(documentOf))];
    const passagesOf = (document) => sources.filter((source) => documentOf(source) === document);
    const items = documents.map((document) => this.#documentItem(passagesOf(document)));
    return el("ul", { class: "sources" }, ...items);
  }

  #documentItem(passages) {
    const [{ title, document_id: id, effective_from: from }] = passages;
    const name = el("span", { class: "title", lang: languageOf(title || id) }, title || id);
    const date = from ? say(el("span", { class: "muted" }), "source_from", { date: { day: from } }) : "";
    return el("li", { class: "document" }, el("p", {}, name, " ", date), ...passages.map((passage) => this.#passageButton(passage)));
  }

  #passageButton(source) {
    const quotes = [...this.#citations, ...this.#related].filter(({ n }) => n === source.n).map(({ quote }) => quote);
    const button = el("button", { type: "button", class: "source", "aria-haspopup": "dialog" });
    button.append(el("span", { class: "n" }, String(source.n)), el("span", { class: "what" }, placeOf(source), quoteOf(source)));
    button.addEventListener("click", () => this.#open(source, quotes, button));
    return button;
  }
}

const documentOf = ({ document_id: id, version }) => `${id}/${version}`;

function quoteOf({ quote }) {
  return quote ? el("span", { class: "quote", lang: languageOf(quote) }, speakable(quote)) : "";
}

/** Return the place of a passage in its document: section and page, or the title without either. */
function placeOf({ section, title, page }) {
  const name = sectionWithin(section, title) || (page ? "" : title);
  const parts = [];
  if (name) parts.push(el("span", { lang: languageOf(name) }, name));
  if (page) parts.push(say(el("span"), "source_page", { page }));
  return el("span", {}, ...parts.flatMap((part, n) => (n ? [" · ", part] : [part])));
}

/** Show below a question how a question that refers to earlier messages was understood. */
export function showUnderstanding(question, understoodAs) {
  if (!understoodAs || question.querySelector(".understood")) return;
  const note = say(el("p", { class: "understood muted", lang: languageOf(understoodAs) }), "understood", { question: understoodAs });
  question.querySelector("p").after(note);
}

/** Return a question as the customer wrote it, with its time and the switch to its siblings, if any. */
export function questionView(text, at, siblingSwitch = null) {
  const author = say(el("h2", { class: "who visually-hidden" }), "you");
  const time = at ? sayMoment(el("span", { class: "at muted" }), { moment: at }) : null;
  return el("article", { class: "asked" }, author, el("p", { lang: languageOf(text) }, text), time, siblingSwitch);
}
