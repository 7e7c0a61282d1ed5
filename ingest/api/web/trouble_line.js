// An error as a sentence for staff.

import { detailOf } from "./details.js";
import { el } from "./dom.js";
import { say } from "./i18n.js";
import { troubleOf } from "./trouble.js";

/** Return the `{key, values}` of an error's sentence. */
export function troubleText(error) {
  const { key, values } = troubleOf(error);
  return { key, values: { ...values, detail: detailOf(values.detail) } };
}

/** Return an error's sentence as a paragraph, which screen readers announce. */
export function troubleLine(error) {
  const { key, values } = troubleText(error);
  return say(el("p", { class: "problem", role: "alert" }), key, values);
}
