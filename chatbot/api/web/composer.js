// The question field: Enter sends (never in the middle of composing a syllable), the counter counts as the server does,
// and what is typed outlives the page in its tab: a phone drops a page that is looked away from, signing in leaves it.

import { byId } from "./dom.js";
import { say } from "./i18n.js";
import { countCodePoints } from "./text.js";

const MOST = 4000;
const DRAFT = "bank.draft";
const CONTROL = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f]/g;

export class Composer {
  #send;
  #busy = false;
  #customer = null;
  #field = byId("question");

  /** `send(text)` is called with a question that may be sent, `stop()` when the customer has read enough. */
  constructor({ send, stop }) {
    this.#send = send;
    byId("ask").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    byId("stop").addEventListener("click", stop);
    this.#field.addEventListener("keydown", (event) => this.#key(event));
    this.#field.addEventListener("input", () => this.#changed());
    this.#changed();
  }

  /** An answer is running: nothing can be sent, it can be stopped. */
  set busy(busy) {
    const onButton = [byId("send"), byId("stop")].includes(document.activeElement);
    this.#busy = busy;
    byId("send").hidden = busy;
    byId("stop").hidden = !busy;
    if (onButton) this.#field.focus(); // the button that had the focus is gone
  }

  /** Put `text` into the field, for the customer to send. */
  fill(text) {
    this.#field.value = text;
    this.#changed();
    this.focus();
  }

  /** Put a question that nobody has answered back before what has been typed since. */
  putBack(text) {
    const typed = this.#field.value.trim() ? this.#field.value : "";
    this.fill([text, typed].filter(Boolean).join("\n"));
  }

  /** Bring back what `customer` had typed when this page was left, unless who that is is not known (null: nothing is kept). */
  resume(customer) {
    const draft = keptDraft();
    this.#customer = customer;
    if (customer !== null && draft?.customer === customer) this.#field.value ||= draft.text;
    this.#changed();
  }

  focus() {
    this.#field.focus();
  }

  #key(event) {
    // 229 is what Safari says for the Enter that ends a composition.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
    event.preventDefault();
    this.#submit();
  }

  #submit() {
    const text = cleaned(this.#field.value);
    if (this.#busy || countCodePoints(text) > MOST) return;
    this.fill(text ? "" : this.#field.value);
    if (text) this.#send(text);
  }

  #changed() {
    const count = countCodePoints(cleaned(this.#field.value));
    const over = count - MOST;
    if (this.#customer !== null) keepDraft({ customer: this.#customer, text: this.#field.value });
    say(byId("counter"), "counter", { count });
    byId("counter").classList.toggle("over", over > 0);
    this.#field.setAttribute("aria-invalid", String(over > 0));
    if (over > 0) say(byId("ask-problem"), "too_long", { over });
    else if (byId("ask-problem").textContent) clear(byId("ask-problem"));
    byId("send").setAttribute("aria-disabled", String(count === 0 || over > 0));
    this.#field.style.height = "auto";
    this.#field.style.height = `${this.#field.scrollHeight + 2}px`;
  }
}

const cleaned = (text) => text.replace(CONTROL, "").trim();

function clear(element) {
  delete element.dataset.i18n;
  element.textContent = "";
}

function keptDraft() {
  try {
    return JSON.parse(sessionStorage.getItem(DRAFT));
  } catch {
    return null; // storage is forbidden in some private windows; the page works without
  }
}

function keepDraft(draft) {
  try {
    sessionStorage.setItem(DRAFT, JSON.stringify(draft));
  } catch {
    // as above
  }
}
