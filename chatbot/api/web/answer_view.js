// One answer on the page: its status while it is awaited, its growing text with markers, and how it ended.

import { el, icon } from "./dom.js";
import { say, sayMoment, t } from "./i18n.js";
import { renderAnswer } from "./render.js";
import { languageOf, leafOf, sectionWithin, speakable } from "./text.js";

const CHECK = "M5 12.5l4.5 4.5L19 7.5";
const MOST_FOLLOW_UPS = 3;
const INFO = "M12 11v6M12 7.5v.5M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18z";

// The other reasons need no words: the answer is complete, or is itself the bank's word on why there is none.
export const isCutShort = (reason) => ["length", "budget", "cancelled", "error", "missing"].includes(reason);

/** Return the notices that tell a customer something about an answer that ended with `reason`, or still runs. */
export function noticesFor(notices, reason = null) {
  // Which server writes it is no customer's matter, and a hand-off says itself that there is no answer.
  const ofTheServer = ["model_switched", "not_resumable", ...(reason === "handoff" ? ["degraded"] : [])];
  return notices.filter(({ code }) => !ofTheServer.includes(code));
}

/** Return the sources, of those `found`, that are other sections of the `cited` documents, in a language: three at most. */
export function followUps(cited, found, language) {
  const known = new Set(["", ...cited.map(leafOf)]);
  const documents = new Set(cited.map(documentOf));
  const others = found.filter((source) => documents.has(documentOf(source)) && languageOf(leafOf(source)) === language);
  return others.filter((source) => !known.has(leafOf(source)) && known.add(leafOf(source))).slice(0, MOST_FOLLOW_UPS);
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

  /** `openPassage({answerId, source, quotes, marker})` is called for a marker or a source that was chosen. */
  constructor(openPassage) {
    this.#openPassage = openPassage;
    this.answerId = null;
    const who = say(el("h2", { class: "who" }), "assistant");
    this.element = el("article", { class: "answer" }, who, this.#notices, this.#body, this.#status, this.#end, this.#sourceList, this.#actions, this.#followUps);
  }

  get text() {
    return this.#text;
  }

  /** Say what is being waited for; without a key nothing is. */
  wait(key, values = {}) {
    this.#status.hidden = !key;
    this.element.setAttribute("aria-busy", String(Boolean(key)));
    if (key) say(this.#status.lastElementChild, key, values);
  }

  sources(items) {
    this.#sources = items;
  }

  append(text) {
    this.#text += text;
    this.#paintSoon();
  }

  cite(citation) {
    this.#citations.push(citation);
    this.#paintSoon();
  }

  /** Passages that may help where there is no answer: shown below it when it has ended. */
  relate(items) {
    this.#related = items;
  }

  notice({ code, text }) {
    const said = el("span", {}, say(el("strong"), "notice"), " ", el("span", { lang: languageOf(text) }, text));
    this.#notices.append(el("p", { class: "notice", "data-code": code }, icon(INFO), said));
  }

  /** The answer ended with `reason` (of a `done` event, or kept in the history). */
  finish(reason, { grounded } = {}) {
    this.wait(null);
    this.paint();
    this.#showSources();
    if (reason === "stop") this.#stamp(grounded);
    else if (isCutShort(reason)) this.#end.append(el("p", { class: "ending", "data-reason": reason }, icon(INFO), say(el("span"), `end_${reason}`)));
  }

  /** The answer failed; `box` says so and offers what can be done. */
  fail(box) {
    this.wait(null);
    this.paint();
    this.#showSources();
    this.#end.replaceChildren(box);
  }

  /** Go on from here with the keyboard. */
  focus() {
    this.element.tabIndex = -1;
    this.element.focus({ preventScroll: true });
  }

  /** Offer what can be done with the answer, below it. */
  offer(actions) {
    this.#actions.replaceChildren(actions);
  }

  /** Offer questions about what else the cited documents say; `ask(text)` asks one. */
  suggest(ask) {
    const sources = followUps(this.#cited(), this.#sources, document.documentElement.lang);
    const questions = sources.map((source) => t("follow_up", { title: source.title, section: leafOf(source) }));
    const button = (text) => el("button", { type: "button", class: "secondary", onclick: () => ask(text) }, text);
    const list = el("ul", { class: "examples" }, ...questions.map((text) => el("li", {}, button(text))));
    this.#followUps.replaceChildren(...(questions.length ? [say(el("h3"), "follow_ups"), list] : []));
  }

  /** The answer as text without signs, with its sources, to be pasted elsewhere. */
  get plainText() {
    const sources = this.#cited().map((source) => `[${source.n}] ${[source.title, leafOf(source)].filter(Boolean).join(" · ")}`);
    const list = sources.length ? ["", t("sources"), ...sources] : [];
    return [this.#text.replaceAll("**", "").trim(), ...list].join("\n");
  }

  /** How many documents are cited. */
  get citedCount() {
    return new Set(this.#cited().map(documentOf)).size;
  }

  /** Return the cited sources by their number. */
  #cited() {
    return [...new Set(this.#citations.map(({ n }) => n))].sort((a, b) => a - b).map((n) => this.#source(n));
  }

  #stamp(grounded) {
    if (grounded === true && this.citedCount) this.#end.append(el("p", { class: "stamp" }, icon(CHECK), say(el("span"), "grounded")));
    if (grounded === false) this.#end.append(el("p", { class: "stamp" }, icon(INFO), say(el("span"), "not_grounded")));
  }

  #paintSoon() {
    // One paint a frame, however fast the tokens come.
    this.#frame ||= requestAnimationFrame(() => this.paint());
  }

  paint() {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    this.#body.lang = languageOf(this.#text);
    renderAnswer(this.#body, this.#text, this.#markers(), (marker) => this.#marker(marker));
  }

  /** One marker a source and place, however many quotes stand behind it. */
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

  #marker({ key, n, quotes }) {
    const source = this.#source(n);
    const button = el("button", { type: "button", class: "cite", "data-cite": key, "aria-haspopup": "dialog" }, String(n));
    button.addEventListener("click", () => this.#open(source, quotes, button));
    return say(button, "cite", { n, title: source.title }, "i18nLabel");
  }

  #source(n) {
    const known = this.#sources.find((source) => source.n === n);
    return known ?? { section: "", ...this.#citations.find((citation) => citation.n === n), title: "" };
  }

  #open(source, quotes, marker) {
    this.#openPassage({ answerId: this.answerId, source, quotes, marker });
  }

  #showSources() {
    this.#sourceList.replaceChildren();
    const cited = this.#cited();
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
    const items = documents.map((document) => this.#document(sources.filter((source) => documentOf(source) === document)));
    return el("ul", { class: "sources" }, ...items);
  }

  #document(passages) {
    const [{ title, document_id: id, effective_from: from }] = passages;
    const name = el("span", { class: "title", lang: languageOf(title || id) }, title || id);
    const date = from ? say(el("span", { class: "muted" }), "source_from", { date: { day: from } }) : "";
    return el("li", { class: "document" }, el("p", {}, name, " ", date), ...passages.map((passage) => this.#passage(passage)));
  }

  #passage(source) {
    const quotes = [...this.#citations, ...this.#related].filter(({ n }) => n === source.n).map(({ quote }) => quote);
    const button = el("button", { type: "button", class: "source", "aria-haspopup": "dialog" });
    button.append(el("span", { class: "n" }, String(source.n)), el("span", { class: "what" }, whereIn(source), quoteOf(source)));
    button.addEventListener("click", () => this.#open(source, quotes, button));
    return button;
  }
}

const documentOf = ({ document_id: id, version }) => `${id}/${version}`;

function quoteOf({ quote }) {
  return quote ? el("span", { class: "quote", lang: languageOf(quote) }, speakable(quote)) : "";
}

/** Return where in its document a passage stands. */
function whereIn({ section, title, page }) {
  const within = sectionWithin(section, title);
  const parts = [
    within || !page ? el("span", { lang: languageOf(within || title) }, within || title) : null,
    page ? say(el("span"), "source_page", { page }) : null,
  ];
  return el("span", {}, ...parts.filter(Boolean).flatMap((part, n) => (n ? [" · ", part] : [part])));
}

/** Say below a question how it was understood, where it was asked with less than all of its words. */
export function showUnderstanding(question, understoodAs) {
  if (!understoodAs || question.querySelector(".understood")) return;
  const note = say(el("p", { class: "understood muted", lang: languageOf(understoodAs) }), "understood", { question: understoodAs });
  question.querySelector("p").after(note);
}

/** Return a question as the customer wrote it; `turns` is the way to what was asked in its place. */
export function questionView(text, at, turns = null) {
  const who = say(el("h2", { class: "who visually-hidden" }), "you");
  const time = at ? sayMoment(el("span", { class: "at muted" }), { moment: at }) : null;
  return el("article", { class: "asked" }, who, el("p", { lang: languageOf(text) }, text), time, turns);
}
