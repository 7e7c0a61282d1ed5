// What went wrong, in a plain sentence.

import { detailOf } from "./details.js";
import { el } from "./dom.js";
import { say } from "./i18n.js";
import { troubleOf } from "./trouble.js";

/** Return `{key, values}` of the sentence that says what went wrong. */
export function troubleSaid(error) {
  const { key, values } = troubleOf(error);
  return { key, values: { ...values, detail: detailOf(values.detail) } };
}

/** Return a paragraph that says what went wrong as soon as it is on the page. */
export function troubleLine(error) {
  const { key, values } = troubleSaid(error);
  return say(el("p", { class: "problem", role: "alert" }), key, values);
}
