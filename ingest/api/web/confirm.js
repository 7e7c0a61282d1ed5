// The dialog before what cannot be taken back at once: says what will happen, and asks why.

import { byId } from "./dom.js";
import { say } from "./i18n.js";

/** Ask `key`; return the reason that was given (perhaps an empty one), or null for no. */
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

/** Make the dialog's buttons work; called once. */
export function wireConfirm() {
  const dialog = byId("confirm");
  byId("confirm-no").addEventListener("click", () => dialog.close("no"));
  addEventListener("hashchange", () => dialog.close("no")); // what it asks about is no longer shown
  // The key that opened the dialog, held down, is no answer to it.
  dialog.addEventListener("keydown", (event) => event.repeat && event.key === "Enter" && event.preventDefault());
  byId("confirm-form").addEventListener("submit", (event) => {
    event.preventDefault();
    dialog.close("yes");
  });
}
