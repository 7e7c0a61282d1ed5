// The box of an error: its text, and a button to retry, now or after a wait.

import { el } from "./dom.js";
import { say } from "./i18n.js";
import { troubleOf } from "./trouble.js";

const NEEDS_NEW_CONVERSATION = new Set(["not_found", "too_large"]);
const NOT_RETRYABLE = new Set(["forbidden", "invalid_request"]);

/** Return a box that explains the error; its button calls `retry` or `startOver`. */
export function troubleView(error, { retry, startOver }) {
  const { code, key } = troubleOf(error);
  const box = el("div", { class: "trouble", "data-code": code }, say(el("p", { class: "said" }), key));
  box.append(say(el("p"), "person"));
  if (NEEDS_NEW_CONVERSATION.has(code)) {
    box.append(say(el("button", { type: "button", class: "secondary", onclick: startOver }), "start_over"));
  } else if (!NOT_RETRYABLE.has(error.code)) {
    box.append(...retryButton(secondsToWait(error), retry));
  }
  return box;
}

/** Return the wait of a problem document or of an `error` event; null if neither has one. */
function secondsToWait({ retryAfter = null, retry_after_ms: milliseconds }) {
  return milliseconds ? milliseconds / 1000 : retryAfter;
}

/** Return a button that calls `retry`; if there is a wait in seconds, with a countdown until it is enabled. */
function retryButton(wait, retry) {
  const button = say(el("button", { type: "button", class: "secondary", onclick: retry }), "retry");
  if (!wait) return [button];
  const note = el("p", { class: "countdown" });
  const until = Date.now() + wait * 1000;
  button.disabled = true;
  const tick = () => {
    const secondsLeft = (until - Date.now()) / 1000;
    const isWaiting = secondsLeft > 0;
    button.disabled = isWaiting;
    if (isWaiting) say(note, "retry_in", { wait: { seconds: secondsLeft } });
    else say(note, "retry_ready");
    const isOnPage = note.isConnected || secondsLeft > wait - 1; // the caller adds it after the first tick
    if (isWaiting && isOnPage) setTimeout(tick, 1000);
  };
  tick();
  return [note, button];
}
