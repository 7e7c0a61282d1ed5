// The question field. Enter sends, except while a syllable is composed; the counter counts as the server does.
// The typed text is stored for the tab, because signing in leaves the page and a phone may unload it.

import { byId } from "./dom.js";
import { say } from "./i18n.js";
import { countCodePoints } from "./text.js";

const MOST_CHARACTERS = 4000;
const DRAFT = "bank.draft";
const CONTROL = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f]/g;

export class Composer {
  #send;
  #busy = false;
  #customer = null;
  #field = byId("question");

  /** `send(text)` is called with each submitted question, `stop()` when the customer stops the answer. */
  constructor({ send, stop }) {
    this.#send = send;
    byId("ask").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    byId("stop").addEventListener("click", stop);
    this.#field.addEventListener("keydown", (event) => this.#handleKey(event));
    this.#field.addEventListener("input", () => this.#update());
    this.#update();
  }

  /** Whether an answer is running: then nothing can be sent, and the answer can be stopped. */
  set busy(busy) {
    const hadFocus = [byId("send"), byId("stop")].includes(document.activeElement);
    this.#busy = busy;
    byId("send").hidden = busy;
    byId("stop").hidden = !busy;
    if (hadFocus) this.#field.focus(); // the focused button is hidden now
  }

  /** Set the text of the field, for the customer to send. */
  fill(text) {
    this.#field.value = text;
    this.#update();
    this.focus();
  }

  /** Insert an unanswered question before the text that the customer has typed since. */
  putBack(text) {
    const typedText = this.#field.value.trim() ? this.#field.value : "";
    this.fill([text, typedText].filter(Boolean).join("\n"));
  }

  /** Restore the draft of `customer`, and store further drafts; for an unknown customer (null) neither. */
  resume(customer) {
    const draft = storedDraft();
    this.#customer = customer;
    if (customer !== null && draft?.customer === customer) this.#field.value ||= draft.text;
    this.#update();
  }

  focus() {
    this.#field.focus();
  }

  #handleKey(event) {
    // Safari sends the key code 229 for the Enter that ends a composition.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
    event.preventDefault();
    this.#submit();
  }

  #submit() {
    const text = withoutControls(this.#field.value);
    if (this.#busy || countCodePoints(text) > MOST_CHARACTERS) return;
    this.fill(text ? "" : this.#field.value);
    if (text) this.#send(text);
  }

  #update() {
    const count = countCodePoints(withoutControls(this.#field.value));
    const over = count - MOST_CHARACTERS;
    if (this.#customer !== null) storeDraft({ customer: this.#customer, text: this.#field.value });
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

const withoutControls = (text) => text.replace(CONTROL, "").trim();

function clear(element) {
  delete element.dataset.i18n;
  element.textContent = "";
}

function storedDraft() {
  try {
    return JSON.parse(sessionStorage.getItem(DRAFT));
  } catch {
    return null; // some private windows forbid storage; the page works without it
  }
}

function storeDraft(draft) {
  try {
    sessionStorage.setItem(DRAFT, JSON.stringify(draft));
  } catch {
    // some private windows forbid storage
  }
}
