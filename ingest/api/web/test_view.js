// The test question: the passages that a customer of some groups would have found at an instant.

import { namesIn } from "./controls.js";
import { byId, el } from "./dom.js";
import { bankNow, say, t } from "./i18n.js";
import { renderPassage } from "./render.js";
import { troubleLine } from "./trouble_line.js";

export class TestView {
  #page;
  #form = byId("test-form");
  #answer = byId("test-answer");
  #requestCount = 0;
  #now = { date: "", time: "" };

  constructor(page) {
    this.#page = page;
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      void this.#ask();
    });
  }

  show() {
    this.#chosenInstant();
  }

  /** Return the instant that the person chose; if the fields have the time that we set, set them to now and return null. */
  #chosenInstant() {
    const { date, time } = this.#form.elements;
    if (date.value !== this.#now.date || time.value !== this.#now.time) return `${date.value}T${time.value}`;
    this.#now = bankNow();
    [date.value, time.value] = [this.#now.date, this.#now.time];
    return null;
  }

  async #ask() {
    const { question, groups } = this.#form.elements;
    const number = ++this.#requestCount;
    this.#answer.replaceChildren(say(el("p", { class: "muted" }), "loading"));
    try {
      const query = { question: question.value, groups: namesIn(groups.value), asOf: this.#chosenInstant() };
      const result = await this.#page.api.search(query);
      if (number !== this.#requestCount) return; // another question was asked
      const summary = summaryOf(result);
      this.#answer.replaceChildren(say(el("p", { class: "said" }), ...summary), el("ol", { class: "hits" }, ...result.hits.map(hitView)));
      this.#page.announcer.announce(t(...summary));
    } catch (error) {
      if (number === this.#requestCount) this.#answer.replaceChildren(troubleLine(error));
      this.#page.onTokenNeeded(error);
    }
  }
}

/** Return the key and the values of the text about a search's result. */
function summaryOf({ as_of: at, as_groups: groups, hits }) {
  const values = { at: { at }, groups: groups.join(", "), count: hits.length };
  return [hits.length ? "test_seen" : "test_nothing", values];
}

function hitView({ score, passage }) {
  const { title, version, page, section, text, language } = passage;
  const key = page === null ? "hit_place" : "hit_place_page";
  return el(
    "li",
    { class: "card" },
    say(el("h3"), key, { title, version, page }),
    el("p", { class: "line muted" }, section, say(el("span"), "test_score", { score: score.toFixed(2) })),
    el("div", { class: "passage-text", lang: language }, ...renderPassage(text, [])),
  );
}
