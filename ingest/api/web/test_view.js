// The test question: which passages a customer of some groups would have found at an instant.

import { namesIn } from "./controls.js";
import { byId, el } from "./dom.js";
import { bankNow, say, t } from "./i18n.js";
import { troubleLine } from "./trouble_line.js";

export class TestView {
  #page;
  #form = byId("test-form");
  #answer = byId("test-answer");
  #latest = 0;
  #now = { date: "", time: "" };

  constructor(page) {
    this.#page = page;
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      void this.#ask();
    });
  }

  show() {
    this.#chosen();
  }

  /** Return the instant that somebody chose, or null where the fields only say what time it is (now anew). */
  #chosen() {
    const { date, time } = this.#form.elements;
    if (date.value !== this.#now.date || time.value !== this.#now.time) return `${date.value}T${time.value}`;
    this.#now = bankNow();
    [date.value, time.value] = [this.#now.date, this.#now.time];
    return null;
  }

  async #ask() {
    const { question, groups } = this.#form.elements;
    const mine = ++this.#latest;
    this.#answer.replaceChildren(say(el("p", { class: "muted" }), "loading"));
    try {
      const asked = { question: question.value, groups: namesIn(groups.value), asOf: this.#chosen() };
      const found = await this.#page.api.search(asked);
      if (mine !== this.#latest) return; // asked anew meanwhile
      const said = saidOf(found);
      this.#answer.replaceChildren(say(el("p", { class: "said" }), ...said), el("ol", { class: "hits" }, ...found.hits.map(hitView)));
      this.#page.announcer.announce(t(...said));
    } catch (error) {
      if (mine === this.#latest) this.#answer.replaceChildren(troubleLine(error));
      this.#page.onTokenNeeded(error);
    }
  }
}

function saidOf({ as_of: at, as_groups: groups, hits }) {
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
    el("p", { class: "text", lang: language }, text),
  );
}
