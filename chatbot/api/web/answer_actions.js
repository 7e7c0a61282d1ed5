// What can be done with an answer that has ended: say whether it helped, ask for another one, go to what stands beside it.

import { el, icon } from "./dom.js";
import { say } from "./i18n.js";

const AGAIN = "M19 12a7 7 0 1 1-2-5M17.5 3v4.5H13";
const THUMB = "M7 11v9H4v-9zM7 11l3.5-8c2 0 3 1.2 2.6 3.2L12.6 9H18c1.6 0 2.3 1 2 2.4l-1.4 6.8A2.2 2.2 0 0 1 16.4 20H7";
const COPY = "M9 9h11v11H9zM5 15H4V4h11v1";
const COPIED = "M5 12.5l4.5 4.5L19 7.5";
const PRINT = "M7 8V4h10v4M7 17H4V8h16v9h-3M7 14h10v6H7z";
const BACK = "M15 5l-7 7 7 7";
const ON = "M9 5l7 7-7 7";
const REASONS = ["reason_wrong", "reason_incomplete", "reason_off_topic", "reason_unclear"];

/**
 * Return the row under an answer. `rate(feedback)` resolves once it is kept; `feedback` is what was said before.
 * `copy()` resolves to whether the answer is in the clipboard; null where the browser gives none.
 */
export function actionsView({ feedback, regenerate, rate, copy, turns }) {
  const again = labelled("again", AGAIN, { class: "plain again", onclick: regenerate });
  const copied = async ({ currentTarget }) => (await copy()) && currentTarget.replaceChildren(icon(COPIED));
  const copying = copy && labelled("copy", COPY, { class: "plain", onclick: copied });
  const printing = labelled("print", PRINT, { class: "plain", onclick: () => print() });
  const rating = new Rating(feedback, rate);
  return el("div", { class: "actions" }, rating.up, rating.down, again, copying, printing, turns, rating.reasons);
}

/** Return a switch between the messages `ids`, of which `id` is shown, or null where it stands alone. */
export function turnsView(ids, id, go) {
  if (ids.length < 2) return null;
  const at = ids.indexOf(id);
  const step = (key, path, to) =>
    labelled(key, path, { class: "plain", "data-step": key, disabled: !(to in ids), onclick: () => go(ids[to], key) });
  const place = say(el("span", { class: "place" }), "turn_place", { n: at + 1, count: ids.length });
  return el("span", { class: "turns", "data-shown": id }, step("turn_previous", BACK, at - 1), place, step("turn_next", ON, at + 1));
}

class Rating {
  #rate;
  #said;

  constructor(feedback, rate) {
    this.#rate = rate;
    this.#said = { rating: feedback?.rating ?? null, reasons: feedback?.reasons ?? [] };
    this.up = labelled("helpful", THUMB, { class: "plain thumb", onclick: () => this.#say({ rating: "up", reasons: [] }) });
    this.down = labelled("not_helpful", THUMB, { class: "plain thumb down", onclick: () => this.#down() });
    this.reasons = say(el("div", { class: "reasons", role: "group" }), "reasons", {}, "i18nLabel");
    this.reasons.append(say(el("p", { class: "muted" }), "reasons"), ...REASONS.map((key) => this.#reason(key)));
    this.#paint();
  }

  #reason(key) {
    const name = key.slice("reason_".length);
    const choose = () => {
      const { reasons } = this.#said;
      const chosen = reasons.includes(name) ? reasons.filter((reason) => reason !== name) : [...reasons, name];
      this.#say({ rating: "down", reasons: chosen });
    };
    return say(el("button", { type: "button", class: "secondary reason", "data-reason": name, onclick: choose }), key);
  }

  #down() {
    if (this.#said.rating !== "down") this.#say({ rating: "down", reasons: [] });
  }

  /** Show at once what was chosen; what could not be kept is taken back. */
  async #say(said) {
    const before = this.#said;
    this.#said = said;
    this.#paint();
    if ((await this.#rate(said)) || this.#said !== said) return;
    this.#said = before;
    this.#paint();
  }

  #paint() {
    const { rating, reasons } = this.#said;
    this.up.setAttribute("aria-pressed", String(rating === "up"));
    this.down.setAttribute("aria-pressed", String(rating === "down"));
    this.reasons.hidden = rating !== "down";
    for (const button of this.reasons.querySelectorAll(".reason")) {
      button.setAttribute("aria-pressed", String(reasons.includes(button.dataset.reason)));
    }
  }
}

const labelled = (key, path, attributes) => say(el("button", { type: "button", ...attributes }, icon(path)), key, {}, "i18nLabel");
