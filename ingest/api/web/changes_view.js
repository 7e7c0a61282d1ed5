// Shows an approver the changes since the last approved version.

import { el } from "./dom.js";
import { say } from "./i18n.js";

const MOST_LISTED = 100;

/** Return elements that list the changed passages; `go(n)` shows one. */
export function changesView({ against, changes, more }, go) {
  if (against === null) return [say(el("p", { class: "muted" }), "changes_first")];
  if (!changes.length) return [say(el("p", { class: "good" }), "changes_none", { against })];
  const numbers = [...new Set(changes.map(({ n }) => n))];
  const summary = say(el("p", { class: "problem" }), "changes_some", { against, count: numbers.length });
  const link = (n) => say(el("button", { type: "button", class: "plain", onclick: () => go(n) }), "passage_n", { n });
  const list = el("p", { class: "line" }, ...numbers.slice(0, MOST_LISTED).map(link));
  return [summary, list, ...(more ? [say(el("p", { class: "problem" }), "changes_more", { count: changes.length })] : [])];
}
