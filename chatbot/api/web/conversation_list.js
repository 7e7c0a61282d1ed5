// The list of the customer's conversations: a column on wide screens, a drawer on phones.

import { byId, el, icon } from "./dom.js";
import { say, sayMoment, t } from "./i18n.js";

const WIDE = matchMedia("(min-width: 64rem)");
const BIN = "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13M10.5 11v5M13.5 11v5";

export class ConversationList {
  #api;
  #actions;
  #cursor = null;
  #current = null;
  #drawer = byId("drawer");
  #list = byId("history-list");
  #note = byId("history-note");
  #more = byId("history-more");

  /** `actions` are `open(id)`, `startNew()`, `deleted(id)`, and `failed(error)` for a failed deletion. */
  constructor(api, actions) {
    this.#api = api;
    this.#actions = actions;
    byId("history-open").addEventListener("click", () => this.#openDrawer());
    byId("new-chat").addEventListener("click", () => this.#closeDrawerAnd(() => actions.startNew()));
    this.#more.addEventListener("click", () => this.#loadPage(this.#cursor));
    this.#drawer.querySelector("[data-close]").addEventListener("click", () => this.#drawer.close());
    this.#drawer.addEventListener("click", (event) => event.target === this.#drawer && this.#drawer.close());
    WIDE.addEventListener("change", () => this.#place());
    this.#place();
  }

  /** Load the newest page again, and mark the conversation `current`. */
  async refresh(current = this.#current) {
    this.#current = current;
    await this.#loadPage(null);
  }

  /** Mark the conversation that is shown. */
  mark(id) {
    this.#current = id;
    for (const button of this.#list.querySelectorAll("[data-conversation]")) {
      if (button.dataset.conversation === id) button.setAttribute("aria-current", "true");
      else button.removeAttribute("aria-current");
    }
  }

  async #loadPage(cursor) {
    let page;
    try {
      page = await this.#api.conversations(cursor);
    } catch {
      this.#showNote("history_failed"); // the page works without the list
      return;
    }
    const rows = page.items.map((item) => this.#row(item));
    if (cursor) this.#list.append(...rows);
    else this.#replaceRows(rows);
    this.#cursor = page.next_cursor;
    this.#more.hidden = !page.next_cursor;
    this.#showNote(this.#list.children.length ? null : "history_empty");
    this.mark(this.#current);
    if (cursor) rows[0]?.querySelector("button").focus();
  }

  /** Replace all rows, and keep the focus on the same button of the same conversation. */
  #replaceRows(rows) {
    const focused = this.#list.contains(document.activeElement) ? document.activeElement : null;
    const buttons = [...(focused?.parentElement.children ?? [])];
    this.#list.replaceChildren(...rows);
    if (!focused) return;
    const firstButton = this.#list.querySelector(`[data-conversation="${buttons[0].dataset.conversation}"]`);
    firstButton?.parentElement.children[buttons.indexOf(focused)].focus({ preventScroll: true });
  }

  #showNote(key) {
    this.#note.hidden = !key;
    if (key) say(this.#note, key);
  }

  #row({ id, title, updated_at: at }) {
    const name = title ? el("span", { class: "title" }, title) : say(el("span", { class: "title" }), "untitled");
    const open = el("button", { type: "button", class: "plain", "data-conversation": id }, name);
    open.append(sayMoment(el("span", { class: "muted" }), { moment: at }));
    open.addEventListener("click", () => this.#closeDrawerAnd(() => this.#actions.open(id)));
    const bin = el("button", { type: "button", class: "plain bin" }, icon(BIN));
    say(bin, "delete", { title }, "i18nLabel");
    bin.addEventListener("click", () => this.#delete(id, title || t("untitled")));
    return el("li", {}, open, bin);
  }

  async #delete(id, title) {
    if (!(await confirmDeletion(title))) return;
    try {
      await this.#api.deleteConversation(id);
    } catch (error) {
      const isAlreadyDeleted = error.status === 404;
      if (!isAlreadyDeleted) {
        this.#showNote("delete_failed");
        this.#actions.failed(error);
        return;
      }
    }
    await this.refresh();
    byId("new-chat").focus();
    this.#actions.deleted(id);
  }

  #openDrawer() {
    this.#drawer.showModal();
  }

  #closeDrawerAnd(action) {
    if (this.#drawer.open) this.#drawer.close();
    action();
  }

  #place() {
    if (WIDE.matches && this.#drawer.open) this.#drawer.close();
    (WIDE.matches ? byId("history-side") : this.#drawer).append(byId("history"));
  }
}

/** Ask whether to delete the conversation `title`; resolve to the answer, false after Escape. */
function confirmDeletion(title) {
  const dialog = byId("confirm");
  say(byId("confirm-text"), "delete_text", { title });
  dialog.returnValue = "";
  byId("confirm-no").onclick = () => dialog.close("no");
  byId("confirm-yes").onclick = () => dialog.close("yes");
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}
