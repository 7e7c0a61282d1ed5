// The buttons under a finished answer: rate it, ask for another one, copy it, print it, show its siblings.

import { el, icon } from "./dom.js";
import { say } from "./i18n.js";

// Icons, as SVG paths.
const AGAIN = "M19 12a7 7 0 1 1-2-5M17.5 3v4.5H13";
const THUMB = "M7 11v9H4v-9zM7 11l3.5-8c2 0 3 1.2 2.6 3.2L12.6 9H18c1.6 0 2.3 1 2 2.4l-1.4 6.8A2.2 2.2 0 0 1 16.4 20H7";
const COPY = "M9 9h11v11H9zM5 15H4V4h11v1";
const COPIED = "M5 12.5l4.5 4.5L19 7.5";
const PRINT = "M7 8V4h10v4M7 17H4V8h16v9h-3M7 14h10v6H7z";
const PREVIOUS = "M15 5l-7 7 7 7";
const NEXT = "M9 5l7 7-7 7";
const REASONS = ["reason_wrong", "reason_incomplete", "reason_off_topic", "reason_unclear"];

/**
 * Return the row of buttons. `feedback` is the stored rating, if any; `rate(feedback)` resolves to whether it is stored.
 * `copy()` resolves to whether the answer is in the clipboard; it is null in a browser without a clipboard.
 */
export function actionsView({ feedback, regenerate, rate, copy, siblingSwitch }) {
  const again = iconButton("again", AGAIN, { class: "plain again", onclick: regenerate });
  const copyAndMark = async ({ currentTarget }) => {
    if (await copy()) currentTarget.replaceChildren(icon(COPIED));
  };
  const copyButton = copy && iconButton("copy", COPY, { class: "plain", onclick: copyAndMark });
  const printButton = iconButton("print", PRINT, { class: "plain", onclick: () => print() });
  const rating = new Rating(feedback, rate);
  return el("div", { class: "actions" }, rating.up, rating.down, again, copyButton, printButton, siblingSwitch, rating.reasons);
}

/** Return a switch between the sibling messages `ids`, of which `id` is shown; null for a message without siblings. */
export function siblingSwitchView(ids, id, open) {
  if (ids.length < 2) return null;
  const shown = ids.indexOf(id);
  const step = (key, path, n) =>
    iconButton(key, path, { class: "plain", "data-step": key, disabled: !(n in ids), onclick: () => open(ids[n], key) });
  const place = say(el("span", { class: "place" }), "turn_place", { n: shown + 1, count: ids.length });
  const [previous, next] = [step("turn_previous", PREVIOUS, shown - 1), step("turn_next", NEXT, shown + 1)];
  return el("span", { class: "turns", "data-shown": id }, previous, place, next);
}

class Rating {
  #rate;
  #feedback;

  constructor(feedback, rate) {
    this.#rate = rate;
    this.#feedback = { rating: feedback?.rating ?? null, reasons: feedback?.reasons ?? [] };
    this.up = iconButton("helpful", THUMB, { class: "plain thumb", onclick: () => this.#send({ rating: "up", reasons: [] }) });
    this.down = iconButton("not_helpful", THUMB, { class: "plain thumb down", onclick: () => this.#rateDown() });
    this.reasons = say(el("div", { class: "reasons", role: "group" }), "reasons", {}, "i18nLabel");
    this.reasons.append(say(el("p", { class: "muted" }), "reasons"), ...REASONS.map((key) => this.#reasonButton(key)));
    this.#paint();
  }

  #reasonButton(key) {
    const name = key.slice("reason_".length);
    const toggle = () => {
      const { reasons } = this.#feedback;
      const chosen = reasons.includes(name) ? reasons.filter((reason) => reason !== name) : [...reasons, name];
      this.#send({ rating: "down", reasons: chosen });
    };
    return say(el("button", { type: "button", class: "secondary reason", "data-reason": name, onclick: toggle }), key);
  }

  #rateDown() {
    if (this.#feedback.rating !== "down") this.#send({ rating: "down", reasons: [] });
  }

  /** Show the feedback and store it; show the previous feedback again if it cannot be stored. */
  async #send(feedback) {
    const previous = this.#feedback;
    this.#feedback = feedback;
    this.#paint();
    const isStored = await this.#rate(feedback);
    const isReplaced = this.#feedback !== feedback; // by a later click
    if (isStored || isReplaced) return;
    this.#feedback = previous;
    this.#paint();
  }

  #paint() {
    const { rating, reasons } = this.#feedback;
    this.up.setAttribute("aria-pressed", String(rating === "up"));
    this.down.setAttribute("aria-pressed", String(rating === "down"));
    this.reasons.hidden = rating !== "down";
    for (const button of this.reasons.querySelectorAll(".reason")) {
      button.setAttribute("aria-pressed", String(reasons.includes(button.dataset.reason)));
    }
  }
}

const iconButton = (key, path, attributes) => say(el("button", { type: "button", ...attributes }, icon(path)), key, {}, "i18nLabel");
