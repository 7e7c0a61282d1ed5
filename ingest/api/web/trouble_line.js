// What went wrong, in a plain sentence.

import { el } from "./dom.js";
import { say } from "./i18n.js";
import { troubleOf } from "./trouble.js";

/** Return a paragraph that says what went wrong as soon as it is on the page. */
export function troubleLine(error) {
  const { key, values } = troubleOf(error);
  return say(el("p", { class: "problem", role: "alert" }), key, values);
}
