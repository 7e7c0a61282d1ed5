// What went wrong, in a plain sentence, with what can be done about it and when.

import { Problem } from "./api.js";
import { el } from "./dom.js";
import { ConnectionLost } from "./event_stream.js";
import { has, say } from "./i18n.js";

const TRY_ELSEWHERE = new Set(["not_found", "too_large"]);
const FINAL = new Set(["forbidden", "invalid_request"]);

/** Return `{code, said, wait, retryable}` of anything that was thrown or sent as an `error` event. */
export function troubleOf(error) {
  if (error instanceof ConnectionLost) return trouble("network", { said: navigator.onLine === false ? "error_network" : "error_unreachable" });
  if (error instanceof Problem) return refusal(error);
  if (error?.type === "error") {
    const wait = error.retry_after_ms ? error.retry_after_ms / 1000 : null;
    return trouble(known(error.code, error.status), { wait });
  }
  console.error(error);
  return trouble("internal");
}

function refusal({ code, status, dimension, retryAfter }) {
  const name = known(code, status);
  const said = has(`error_${name}_${dimension}`) ? `error_${name}_${dimension}` : `error_${name}`;
  // Another answer of the same customer may end at any moment: what the server names is only the latest time.
  const wait = dimension === "concurrent" ? null : retryAfter;
  return trouble(name, { said, wait, retryable: !FINAL.has(code) });
}

const trouble = (code, { said = `error_${code}`, wait = null, retryable = true } = {}) => ({ code, said, wait, retryable });

function known(code, status) {
  if (has(`error_${code}`)) return code;
  if (status === 429) return "rate_limited";
  if (status === 502 || status === 503 || status === 504) return "unavailable";
  if (status === 400 || status === 422) return "invalid_request";
  return "internal";
}

/** Return a box that says what happened and calls `retry` or `startOver` when the customer wants that. */
export function troubleView({ code, said, wait, retryable }, { retry, startOver }) {
  const box = el("div", { class: "trouble", "data-code": code }, say(el("p", { class: "said" }), said));
  box.append(say(el("p"), "person"));
  if (TRY_ELSEWHERE.has(code)) box.append(say(el("button", { type: "button", class: "secondary", onclick: startOver }), "start_over"));
  else if (retryable) box.append(...retryAfter(wait, retry));
  return box;
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
    if (left > 0) say(note, "retry_in", { wait: { wait: left } });
    else say(note, "retry_ready");
    // Gone from the page, it need not count on.
    if (left > 0 && (note.isConnected || left > wait - 1)) setTimeout(tick, 1000);
  };
  tick();
  return [note, button];
}
