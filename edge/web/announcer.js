// What a screen reader hears of a growing answer: whole sentences, never single tokens.

import { el } from "./dom.js";
import { completeUpTo, languageOf, speakable } from "./text.js";

// Long enough to be read out; afterwards the words would only stand twice on the page.
const KEPT_MS = 20_000;

export class Announcer {
  #region;
  #read = 0;

  constructor(region) {
    this.#region = region;
  }

  /** Read out `text` once. */
  announce(text, lang = document.documentElement.lang) {
    const line = el("p", { lang }, text);
    this.#region.append(line);
    setTimeout(() => line.remove(), KEPT_MS);
  }

  /** A new answer begins: nothing of it has been read. */
  begin() {
    this.#read = 0;
  }

  /** Read out the sentences of the answer `text` that are complete and new; all of it once it is `ended`. */
  follow(text, { ended = false } = {}) {
    const end = ended ? text.length : completeUpTo(text);
    const fresh = speakable(text.slice(this.#read, end));
    if (end > this.#read) this.#read = end;
    if (fresh) this.announce(fresh, languageOf(text));
  }
}
