// What went wrong, with what can be done about it and when.

import { el } from "./dom.js";
import { say } from "./i18n.js";
import { troubleOf } from "./trouble.js";

const TRY_ELSEWHERE = new Set(["not_found", "too_large"]);
const FINAL = new Set(["forbidden", "invalid_request"]);

/** Return a box that says what happened and calls `retry` or `startOver` when the customer wants that. */
export function troubleView(error, { retry, startOver }) {
  const { code, key } = troubleOf(error);
  const box = el("div", { class: "trouble", "data-code": code }, say(el("p", { class: "said" }), key));
  box.append(say(el("p"), "person"));
  if (TRY_ELSEWHERE.has(code)) box.append(say(el("button", { type: "button", class: "secondary", onclick: startOver }), "start_over"));
  else if (!FINAL.has(error.code)) box.append(...retryAfter(waitOf(error), retry));
  return box;
}

function waitOf({ retryAfter = null, retry_after_ms: milliseconds }) {
  return milliseconds ? milliseconds / 1000 : retryAfter;
}

function retryAfter(wait, retry) {
  const button = say(el("button", { type: "button", class: "secondary", onclick: retry }), "retry");
  if (!wait) return [button];
  const note = el("p", { class: "countdown" });
  const until = Date.now() + wait * 1000;
  button.disabled = true;
  const tick = () => {
    const left = (until - Date.now()) / 1000;
    button.disabled = left > 0;
    if (left > 0) say(note, "retry_in", { wait: { seconds: left } });
    else say(note, "retry_ready");
    // Gone from the page, it need not count on.
    if (left > 0 && (note.isConnected || left > wait - 1)) setTimeout(tick, 1000);
  };
  tick();
  return [note, button];
}
