// The dialog before an action that cannot be undone at once: it says what will happen, and asks for the reason.

import { byId } from "./dom.js";
import { say } from "./i18n.js";

/** Show the question `key`; return the reason, which may be empty, or null if the person cancels. */
export function askToConfirm(key, values) {
  const dialog = byId("confirm");
  const reason = byId("confirm-reason");
  say(byId("confirm-text"), key, values);
  reason.value = "";
  dialog.returnValue = "";
  dialog.showModal();
  reason.focus();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes" ? reason.value.trim() : null), { once: true });
  });
}

/** Add the dialog's listeners; call once. */
export function wireConfirm() {
  const dialog = byId("confirm");
  byId("confirm-no").addEventListener("click", () => dialog.close("no"));
  addEventListener("hashchange", () => dialog.close("no")); // its subject is no longer shown
  // The Enter key that opened the dialog must not answer it while it is held down.
  dialog.addEventListener("keydown", (event) => event.repeat && event.key === "Enter" && event.preventDefault());
  byId("confirm-form").addEventListener("submit", (event) => {
    event.preventDefault();
    dialog.close("yes");
  });
}
