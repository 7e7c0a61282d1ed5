// What a screen reader is told: how things ended, never each step.

import { el } from "./dom.js";
import { t } from "./i18n.js";

// Long enough to be read out; afterwards the words would only stand twice on the page.
const KEPT_MS = 20_000;

export class Announcer {
  #region;

  constructor(region) {
    this.#region = region;
  }

  /** Read out the text `key` once. */
  announce(key, values = {}) {
    const line = el("p", {}, t(key, values));
    this.#region.append(line);
    setTimeout(() => line.remove(), KEPT_MS);
  }
}
