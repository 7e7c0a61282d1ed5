// The customer's earlier conversations: a column on wide screens, a drawer on phones; open one, delete one, load more.

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

  /** `actions` are `open(id)`, `startNew()`, `deleted(id)`, `failed(error)` where something could not be deleted. */
  constructor(api, actions) {
    this.#api = api;
    this.#actions = actions;
    byId("history-open").addEventListener("click", () => this.#openDrawer());
    byId("new-chat").addEventListener("click", () => this.#leaveDrawer(() => actions.startNew()));
    this.#more.addEventListener("click", () => this.#page(this.#cursor));
    this.#drawer.querySelector("[data-close]").addEventListener("click", () => this.#drawer.close());
    this.#drawer.addEventListener("click", (event) => event.target === this.#drawer && this.#drawer.close());
    WIDE.addEventListener("change", () => this.#settle());
    this.#settle();
  }

  /** Load the newest page again and mark `current`. */
  async refresh(current = this.#current) {
    this.#current = current;
    await this.#page(null);
  }

  /** Mark the conversation that is shown. */
  mark(id) {
    this.#current = id;
    for (const button of this.#list.querySelectorAll("[data-conversation]")) {
      if (button.dataset.conversation === id) button.setAttribute("aria-current", "true");
      else button.removeAttribute("aria-current");
    }
  }

  async #page(cursor) {
    let page;
    try {
      page = await this.#api.conversations(cursor);
    } catch {
      this.#tell("history_failed"); // the conversation itself goes on without its list
      return;
    }
    const rows = page.items.map((item) => this.#row(item));
    if (cursor) this.#list.append(...rows);
    else this.#replace(rows);
    this.#cursor = page.next_cursor;
    this.#more.hidden = !page.next_cursor;
    this.#tell(this.#list.children.length ? null : "history_empty");
    this.mark(this.#current);
    if (cursor) rows[0]?.querySelector("button").focus();
  }

  /** Show `rows` in place of those that are there, with the focus where it was. */
  #replace(rows) {
    const focused = this.#list.contains(document.activeElement) ? document.activeElement : null;
    const buttons = [...(focused?.parentElement.children ?? [])];
    this.#list.replaceChildren(...rows);
    if (!focused) return;
    const same = this.#list.querySelector(`[data-conversation="${buttons[0].dataset.conversation}"]`);
    same?.parentElement.children[buttons.indexOf(focused)].focus({ preventScroll: true });
  }

  #tell(key) {
    this.#note.hidden = !key;
    if (key) say(this.#note, key);
  }

  #row({ id, title, updated_at: at }) {
    const name = title ? el("span", { class: "title" }, title) : say(el("span", { class: "title" }), "untitled");
    const open = el("button", { type: "button", class: "plain", "data-conversation": id }, name);
    open.append(sayMoment(el("span", { class: "muted" }), { moment: at }));
    open.addEventListener("click", () => this.#leaveDrawer(() => this.#actions.open(id)));
    const remove = el("button", { type: "button", class: "plain bin" }, icon(BIN));
    say(remove, "delete", { title }, "i18nLabel");
    remove.addEventListener("click", () => this.#remove(id, title || t("untitled")));
    return el("li", {}, open, remove);
  }

  async #remove(id, title) {
    if (!(await confirmed(title))) return;
    try {
      await this.#api.deleteConversation(id);
    } catch (error) {
      if (error.status !== 404) { // deleted elsewhere: gone is gone
        this.#tell("delete_failed");
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

  #leaveDrawer(then) {
    if (this.#drawer.open) this.#drawer.close();
    then();
  }

  #settle() {
    if (WIDE.matches && this.#drawer.open) this.#drawer.close();
    (WIDE.matches ? byId("history-side") : this.#drawer).append(byId("history"));
  }
}

/** Ask whether the conversation `title` shall be deleted; Escape means no. */
function confirmed(title) {
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
