// One file's row: its name, how far it is, why it failed, and what can be done next.

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
  #said;
  #below = el("div", { class: "below" });

  /** `dismiss(job)`, where given, removes the row of a file that failed; `job` is null where it was not received. */
  constructor(name, bytes, announcer, dismiss = null) {
    this.#name = name;
    this.#dismiss = dismiss;
    this.#announcer = announcer;
    this.#bar = say(el("progress", { max: "1" }), "file_progress", { name }, "i18nLabel");
    this.#said = el("p", { class: "said" });
    const size = bytes === null ? null : say(el("span", { class: "muted" }), "size", { size: { bytes } });
    this.element = el("li", { class: "file" }, el("p", { class: "name" }, name, " ", size), this.#bar, this.#said, this.#below);
  }

  /** Show a step of `intake.js`; `giveUp` stops what has not been received yet. */
  show(step, giveUp) {
    const { key, values, part } = progressOf(step);
    say(this.#said, key, values);
    if (part === null) this.#bar.removeAttribute("value");
    else this.#bar.value = part;
    this.element.dataset.state = step.state;
    const next = this.#next(step, giveUp);
    if (next) this.#below.replaceChildren(...next);
  }

  /** Say that the file was refused; `again` sends it once more. */
  refuse(error, again) {
    this.element.dataset.state = "failed";
    this.#bar.value = 1;
    say(this.#said, "file_failed");
    this.#below.replaceChildren(troubleLine(error), button("retry", again), ...this.#dismissal(null));
  }

  /** Say that somebody gave the file up. */
  givenUp() {
    this.element.dataset.state = "failed";
    this.#bar.value = 0;
    say(this.#said, "given_up");
    this.#below.replaceChildren(...this.#dismissal(null));
  }

  #dismissal(job) {
    return this.#dismiss ? [button("dismiss", () => void this.#dismiss(job), { values: { name: this.#name }, look: "plain" })] : [];
  }

  #next({ state, received, job }, giveUp) {
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
    const why = reasonKey(job.reason, has);
    this.#announcer.announce(t("heard_failed", { name: this.#name, why: t(why) }));
    return [say(el("p", { class: "problem" }), why), detailView(job.detail) ?? "", ...this.#dismissal(job)];
  }
}
