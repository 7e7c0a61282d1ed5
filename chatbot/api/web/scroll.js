// Keeps the newest question at the top of the log, with its answer below it, until the customer scrolls.

// All in pixels.
const GAP = 16; // above the question
const NEAR = 48; // the button is hidden up to this distance from the question
const ROUNDING = 2; // scroll offsets may be fractions

export class LogScroll {
  #log;
  #messages;
  #button;
  #followsQuestion = false;

  /** `button` scrolls to the newest question; it is visible while the customer reads further up. */
  constructor(log, messages, button) {
    this.#log = log;
    this.#messages = messages;
    this.#button = button;
    log.addEventListener("scroll", () => this.#handleScroll(), { passive: true });
    const observer = new ResizeObserver(() => this.#layOut());
    for (const element of [log, messages]) observer.observe(element);
    button.addEventListener("click", () => {
      this.toQuestion();
      log.focus({ preventScroll: true });
    });
  }

  /** Scroll the newest question to the top. */
  toQuestion() {
    this.#followsQuestion = true;
    this.#layOut();
  }

  toStart() {
    this.#followsQuestion = false;
    this.#layOut();
    this.#log.scrollTop = 0;
  }

  /** Add so much space below the messages that the newest question can be at the top, and scroll to it. */
  #layOut() {
    const top = this.#questionTop();
    const missingHeight = top + this.#log.clientHeight - this.#messages.offsetTop - this.#messages.offsetHeight;
    const needsSpace = top > 0 && missingHeight > 0;
    this.#messages.parentElement.style.paddingBottom = needsSpace ? `${missingHeight + ROUNDING}px` : "";
    if (this.#followsQuestion) this.#log.scrollTop = top;
    this.#updateButton();
  }

  #handleScroll() {
    if (Math.abs(this.#log.scrollTop - this.#questionTop()) > ROUNDING) this.#followsQuestion = false;
    this.#updateButton();
  }

  #updateButton() {
    this.#button.hidden = this.#questionTop() - this.#log.scrollTop < NEAR;
  }

  /** Return the scroll offset with the newest question at the top; of a long question, only the end is visible. */
  #questionTop() {
    const question = [...this.#messages.children].findLast((message) => message.matches(".asked"));
    if (!question) return 0;
    const { offsetTop, offsetHeight } = question;
    return Math.floor(Math.max(offsetTop - GAP, offsetTop + offsetHeight - this.#log.clientHeight / 2));
  }
}
