// Shows an approver the screening findings in a version's passages.

import { el } from "./dom.js";
import { has, say } from "./i18n.js";

/** Return elements that list the findings; `go(finding)`, if given, shows its passage. */
export function findingsView({ findings, passages, more }, go = null) {
  if (!findings.length) return [say(el("p", { class: "good" }), "findings_none", { passages })];
  const summary = say(el("p", { class: "problem" }), "findings_some", { count: findings.length });
  const list = el("ul", { class: "found" }, ...findings.map((finding) => row(finding, go)));
  return [summary, list, ...(more ? [say(el("p", { class: "muted" }), "findings_more", { count: findings.length })] : [])];
}

function row(finding, go) {
  const nameKey = `finding_${finding.name}`;
  const kind = say(el("span"), `finding_${finding.kind}`, { name: { said: has(nameKey) ? nameKey : "finding_other" } });
  const place = go ? el("button", { type: "button", class: "plain", onclick: () => go(finding) }) : el("span");
  say(place, "finding_at", { n: finding.n });
  return el("li", {}, place, " ", kind, el("q", {}, finding.excerpt));
}
