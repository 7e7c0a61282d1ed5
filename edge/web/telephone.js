// Telephone numbers in a text, as links that dial.

import { BANK } from "./bank.js";
import { el } from "./dom.js";

// Of Korea with its hyphens (02-123-4567, 1588-0000), and the bank's own as it is written; among other digits it is an account.
const OWN = BANK.telephone.replace(/[+() ]/g, "\\$&");
const NUMBER = new RegExp(`(?<![\\d,.-])(?:${OWN}|\\+82-\\d{1,2}-\\d{3,4}-\\d{4}|0\\d{1,2}-\\d{3,4}-\\d{4}|1[5-8]\\d\\d-\\d{4})(?![\\d-])`, "g");
const SHORT = /(?<!\d)\d{3}(?!\d)/g; // 109, 119: any number looks like this, so only in the reply that names the helplines

/** Return the UTF-16 ranges `{start, end}` of the telephone numbers in `text`. */
export function telephonesIn(text) {
  const isHelp = Object.values(BANK.helplines.crisis).some((line) => text.includes(line));
  const found = [...text.matchAll(NUMBER), ...(isHelp ? text.matchAll(SHORT) : [])];
  const ranges = found.map(({ 0: number, index }) => ({ start: index, end: index + number.length }));
  return ranges.sort((a, b) => a.start - b.start);
}

/** Return a link that dials `number`, as which `text` is shown. */
export function telephoneLink(number, text = number) {
  return el("a", { class: "tel", href: `tel:${number.replace(/[^+\d]/g, "")}` }, text);
}

/** Return `text` as nodes, its telephone numbers as links. */
export function withTelephones(text) {
  const nodes = [];
  let at = 0;
  for (const { start, end } of telephonesIn(text)) {
    nodes.push(text.slice(at, start), telephoneLink(text.slice(start, end)));
    at = end;
  }
  return [...nodes, text.slice(at)].filter((node) => node !== "");
}
