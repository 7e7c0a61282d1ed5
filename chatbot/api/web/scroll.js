// Follows a growing conversation, but only for a customer who is at its end: who reads further up is left in peace.

const NEAR = 48;

export class LogScroll {
  #log;
  #button;
  #following = true;
  #top = 0;

  /** `button` leads back to the end; it shows while the customer reads further up. */
  constructor(log, button) {
    this.#log = log;
    this.#button = button;
    log.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    // Opening a list is no growth of the conversation: what was opened stays where it is.
    log.addEventListener("click", (event) => event.target.closest("summary") && (this.#following = false));
    new ResizeObserver(() => this.#resized()).observe(log.firstElementChild);
    button.addEventListener("click", () => {
      this.toEnd();
      log.focus({ preventScroll: true });
    });
  }

  toEnd() {
    this.#following = true;
    this.#resized();
  }

  toStart() {
    this.#following = false;
    this.#log.scrollTop = 0;
    this.#button.hidden = true;
  }

  #resized() {
    if (this.#following) this.#log.scrollTop = this.#log.scrollHeight;
    this.#button.hidden = this.#following || this.#isNearEnd();
  }

  #scrolled() {
    const top = this.#log.scrollTop;
    if (this.#isNearEnd()) this.#following = true;
    else if (top < this.#top) this.#following = false; // upwards: only the customer does that
    this.#top = top;
    this.#button.hidden = this.#following || this.#isNearEnd();
  }

  #isNearEnd() {
    return this.#log.scrollHeight - this.#log.scrollTop - this.#log.clientHeight < NEAR;
  }
}
