// What screening found in a version's passages, for whoever is to approve it.

import { el } from "./dom.js";
import { has, say } from "./i18n.js";

/** Return elements that say what was found; `go(finding)`, where given, leads to its passage. */
export function findingsView({ findings, passages, more }, go = null) {
  if (!findings.length) return [say(el("p", { class: "good" }), "findings_none", { passages })];
  const said = say(el("p", { class: "problem" }), "findings_some", { count: findings.length });
  const list = el("ul", { class: "found" }, ...findings.map((finding) => row(finding, go)));
  return [said, list, ...(more ? [say(el("p", { class: "muted" }), "findings_more", { count: findings.length })] : [])];
}

function row(finding, go) {
  const known = `finding_${finding.name}`;
  const what = say(el("span"), `finding_${finding.kind}`, { name: { said: has(known) ? known : "finding_other" } });
  const at = { n: finding.n };
  const place = go
    ? say(el("button", { type: "button", class: "plain", onclick: () => go(finding) }), "finding_at", at)
    : say(el("span"), "finding_at", at);
  return el("li", {}, place, " ", what, el("q", {}, finding.excerpt));
}
