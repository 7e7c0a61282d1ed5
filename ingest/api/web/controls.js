// Elements that several views use.

import { detailOf } from "./details.js";
import { el } from "./dom.js";
import { say, t } from "./i18n.js";
import { reasonKey } from "./progress.js";

/** Return a button with the text `key`; `look` is its class. */
export function button(key, onclick, { values = {}, look = "secondary", ...attributes } = {}) {
  return say(el("button", { type: "button", class: look, onclick, ...attributes }), key, values);
}

/** Return a link with the text `key` to a view of this page (`#/…`). */
export const link = (key, place, values = {}) => say(el("a", { href: place, class: "button secondary" }), key, values);

/** Return a list of facts; `rows` are pairs of a text's key and a value; rows with an empty value are left out. */
export function facts(rows) {
  const shown = rows.filter(([, value]) => value !== null && value !== "");
  return el("dl", { class: "facts" }, ...shown.map(([key, value]) => el("div", {}, say(el("dt"), key), described(value))));
}

/** Return a labelled field of a form. */
export function field(key, name, attributes = {}) {
  const id = `${name}-${++fieldCount}`;
  return el("p", { class: "field" }, say(el("label", { for: id }), key), el("input", { id, name, ...attributes }));
}

let fieldCount = 0;

/** Return the badge of a version's state. */
export const badge = (state) => say(el("span", { class: "badge", "data-state": state }), `state_${state}`);

/** Return the title of a version, or its file's name if it has none yet. */
export const titleOf = (version) => version.title ?? version.file_name;

/** Return the values `{title, version}` of a message about a version. */
export const namesOf = (version) => ({ title: titleOf(version), version: version.version });

/** Remove the row of a list, and focus its neighbour or else the view's heading. */
export function removeRow(row) {
  const neighbour = row.nextElementSibling ?? row.previousElementSibling;
  const next = neighbour?.querySelector("button, a") ?? row.closest("section").querySelector("h2");
  row.remove();
  next.focus();
}

/** Return the facts of a version. */
export function factsOf(version) {
  const day = (date) => (date ? { date } : { said: "date_open" });
  const visible = { from: { at: version.visible_from }, until: { at: version.visible_until } };
  const wasNeverVisible = version.visible_from === null || version.visible_until === version.visible_from;
  return facts([
    ["fact_why", version.reason && { key: reasonKey(version.reason, hasText), detail: version.detail }],
    ["fact_product", version.product],
    ["fact_link", version.link && { href: version.link }],
    ["fact_file", version.file_name],
    ["fact_uploaded", who(version.uploaded_by, version.uploaded_at)],
    ["fact_approved", version.approved_by && who(version.approved_by, version.approved_at)],
    ["fact_readers", version.readers.join(", ")],
    ["fact_dates", { key: "dates_of", values: { from: day(version.effective_from), until: day(version.effective_until) } }],
    ["fact_visible", wasNeverVisible ? null : { key: version.visible_until === null ? "visible_since" : "visible_of", values: visible }],
    ["fact_passages", String(version.passages)],
  ]);
}

const hasText = (key) => t(key) !== key;
const who = (name, at) => ({ key: "who_when", values: { who: name, when: { at } } });

function described(value) {
  if (typeof value === "string") return el("dd", {}, value);
  if (value.href) return el("dd", {}, el("a", { href: value.href, target: "_blank", rel: "noopener noreferrer" }, value.href));
  const text = say(el("span"), value.key, value.values ?? {});
  return el("dd", {}, text, detailView(value.detail));
}

/** Return the server's explanation or a person's reason as an element; null without one. */
export const detailView = (detail) => (detail ? say(el("span", { class: "muted detail" }), "detail", { detail: detailOf(detail) }) : null);

/** Return the names in a field that separates them by commas. */
export const namesIn = (text) => text.split(",").map((name) => name.trim()).filter(Boolean);
