// What changed between two versions: each place with its neighbours, changed words marked.

import { el } from "./dom.js";
import { say } from "./i18n.js";

const SIGNS = { removed: "−", added: "+", same: " " };
const TAGS = { removed: "del", added: "ins", same: "span" };

/** Return elements that show the differences. */
export function diffView({ places, against, version, more }) {
  const title = say(el("h3", { tabindex: "-1" }), "diff_title", { against, version });
  if (!places.length) return [title, say(el("p", { class: "good" }), "diff_none")];
  const cut = more ? [say(el("p", { class: "muted" }), "diff_more")] : [];
  return [title, ...places.map((place) => el("ul", { class: "diff" }, ...place.map(lineView))), ...cut];
}

function lineView({ kind, pieces }) {
  const heard = kind === "same" ? null : say(el("span", { class: "visually-hidden" }), `diff_${kind}`);
  const sign = el("span", { class: "sign", "aria-hidden": "true" }, SIGNS[kind]);
  const words = pieces.map(({ text, changed }) => (changed && kind !== "same" ? el("mark", {}, text) : text));
  return el("li", { "data-kind": kind }, sign, heard, el(TAGS[kind], {}, ...words));
}
