// One file's row: its name, its progress, the reason if it failed, and the buttons for the next action.

import { button, detailView, link } from "./controls.js";
import { el } from "./dom.js";
import { has, say, t } from "./i18n.js";
import { progressOf, reasonKey } from "./progress.js";
import { troubleLine } from "./trouble_line.js";

export class UploadRow {
  #announcer;
  #dismiss;
  #name;
  #bar;
  #text;
  #below = el("div", { class: "below" });

  /** `dismiss(job)`, if given, removes the row of a failed file; `job` is null if the file was not received. */
  constructor(name, bytes, announcer, dismiss = null) {
    this.#name = name;
    this.#dismiss = dismiss;
    this.#announcer = announcer;
    this.#bar = say(el("progress", { max: "1" }), "file_progress", { name }, "i18nLabel");
    this.#text = el("p", { class: "said" });
    const size = bytes === null ? null : say(el("span", { class: "muted" }), "size", { size: { bytes } });
    this.element = el("li", { class: "file" }, el("p", { class: "name" }, name, " ", size), this.#bar, this.#text, this.#below);
  }

  /** Show a step of `intake.js`; `giveUp` stops a file that has not been received yet. */
  show(step, giveUp) {
    const { key, values, part } = progressOf(step);
    say(this.#text, key, values);
    if (part === null) this.#bar.removeAttribute("value");
    else this.#bar.value = part;
    this.element.dataset.state = step.state;
    const elements = this.#elementsBelow(step, giveUp);
    if (elements) this.#below.replaceChildren(...elements);
  }

  /** Show that the file was refused; `retry` sends it again. */
  showRefusal(error, retry) {
    this.element.dataset.state = "failed";
    this.#bar.value = 1;
    say(this.#text, "file_failed");
    this.#below.replaceChildren(troubleLine(error), button("retry", retry), ...this.#dismissButton(null));
  }

  /** Show that the person gave the file up. */
  showGivenUp() {
    this.element.dataset.state = "failed";
    this.#bar.value = 0;
    say(this.#text, "given_up");
    this.#below.replaceChildren(...this.#dismissButton(null));
  }

  #dismissButton(job) {
    return this.#dismiss ? [button("dismiss", () => void this.#dismiss(job), { values: { name: this.#name }, look: "plain" })] : [];
  }

  /** Return the elements below the progress bar; null to leave them as they are. */
  #elementsBelow({ state, received, job }, giveUp) {
    if (state === "waiting") return giveUp ? [button("give_up", giveUp, { values: { name: this.#name }, look: "plain" })] : [];
    if (state === "sending") return null;
    if (state === "back") {
      this.#announcer.announce(t("file_back"));
      return [];
    }
    if (state === "done" || state === "there") {
      this.#announcer.announce(t("heard_done", { name: this.#name }));
      return [link("file_review", `#/review/${encodeURIComponent(received.document_id)}/${received.version}`, { name: this.#name })];
    }
    if (state !== "failed") return [];
    const reason = reasonKey(job.reason, has);
    this.#announcer.announce(t("heard_failed", { name: this.#name, why: t(reason) }));
    return [say(el("p", { class: "problem" }), reason), detailView(job.detail) ?? "", ...this.#dismissButton(job)];
  }
}
