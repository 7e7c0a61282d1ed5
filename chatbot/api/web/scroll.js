// Keeps the newest question at the top of the log, with its answer below it, until the customer scrolls.

const GAP = 16;
const NEAR = 48;
const ROUNDED = 2; // offsets are whole pixels, places are not

export class LogScroll {
  #log;
  #messages;
  #button;
  #isKept = false;

  /** `button` leads to the newest question; it shows while the customer reads further up. */
  constructor(log, messages, button) {
    this.#log = log;
    this.#messages = messages;
    this.#button = button;
    log.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    const resized = new ResizeObserver(() => this.#resized());
    for (const element of [log, messages]) resized.observe(element);
    button.addEventListener("click", () => {
      this.toQuestion();
      log.focus({ preventScroll: true });
    });
  }

  /** Bring the newest question to the top. */
  toQuestion() {
    this.#isKept = true;
    this.#resized();
  }

  toStart() {
    this.#isKept = false;
    this.#resized();
    this.#log.scrollTop = 0;
  }

  #resized() {
    const top = this.#top();
    const room = top + this.#log.clientHeight - this.#messages.offsetTop - this.#messages.offsetHeight;
    this.#messages.parentElement.style.paddingBottom = top > 0 && room > 0 ? `${room + ROUNDED}px` : "";
    if (this.#isKept) this.#log.scrollTop = top;
    this.#offer();
  }

  #scrolled() {
    if (Math.abs(this.#log.scrollTop - this.#top()) > ROUNDED) this.#isKept = false;
    this.#offer();
  }

  #offer() {
    this.#button.hidden = this.#top() - this.#log.scrollTop < NEAR;
  }

  /** Return where the log stands with the newest question at its top; of a long one only the end is kept in view. */
  #top() {
    const question = [...this.#messages.children].findLast((message) => message.matches(".asked"));
    if (!question) return 0;
    const { offsetTop, offsetHeight } = question;
    return Math.floor(Math.max(offsetTop - GAP, offsetTop + offsetHeight - this.#log.clientHeight / 2));
  }
}
