// Many files at once: dropped or chosen, sent a few at a time, each followed in a row of its own.

import { namesIn, removeRow } from "./controls.js";
import { byId, el } from "./dom.js";
import { takeDrops } from "./drop.js";
import { say, t } from "./i18n.js";
import { takeIn } from "./intake.js";
import { Lanes } from "./lanes.js";
import { troubleLine } from "./trouble_line.js";
import { UploadRow } from "./upload_row.js";

// A browser has six connections to a server (HTTP/1.1): one stays free for what somebody does meanwhile.
const SENDING = 2;
const FOLLOWING = 3;

export class UploadView {
  #page;
  #rows = byId("files");
  #unfinished = new Map(); // each file's controller, and whether the server has the file

  constructor(page) {
    this.#page = page;
    this.lanes = { sending: new Lanes(SENDING), following: new Lanes(FOLLOWING) };
    const input = byId("file-input");
    takeDrops(byId("drop"), (files) => this.#take(files));
    input.addEventListener("change", () => {
      this.#take([...input.files]);
      input.value = ""; // the same file may be chosen again
    });
    addEventListener("beforeunload", (event) => this.#unfinished.size > 0 && event.preventDefault());
  }

  show() {}

  /** Send nothing more of what waits: it would be refused, or go in the name of whoever enters next. */
  pause(error) {
    for (const [controller, received] of this.#unfinished) if (!received) controller.abort(error);
  }

  /** Forget the files of who was here and what they filled in; nothing more of them is sent. */
  clear() {
    byId("upload-fields").reset();
    byId("upload-problem").replaceChildren();
    for (const controller of this.#unfinished.keys()) controller.abort();
    this.#rows.replaceChildren();
    byId("files-title").hidden = true;
  }

  #take(files) {
    const fields = this.#fields();
    const isForOne = files.length > 1 && (fields.title || fields.link);
    const refusal = say(el("p", { class: "problem", role: "alert" }), "upload_one_only");
    byId("upload-problem").replaceChildren(...(isForOne ? [refusal] : []));
    if (isForOne) return;
    for (const name of ["title", "link"]) byId(name).value = ""; // of this file, and not of the next
    for (const file of files) void this.send(file, fields, this.#rows);
    byId("files-title").hidden = false;
  }

  #fields() {
    const { readers, ...filled } = Object.fromEntries([...new FormData(byId("upload-fields"))].map(([name, value]) => [name, value.trim()]));
    return { readers: namesIn(readers), ...filled };
  }

  /** Send one file with a row in `list`; return its job, or null where it was refused. */
  async send(file, fields, list) {
    const { api, announcer } = this.#page;
    const row = new UploadRow(file.name, file.size, announcer, (job) => this.#dismiss(row, file.name, job));
    list.append(row.element);
    const controller = new AbortController();
    const giveUp = () => controller.abort();
    this.#unfinished.set(controller, false);
    try {
      const tell = (step) => {
        if (step.received) this.#unfinished.set(controller, true);
        row.show(step, giveUp);
      };
      // Who sends a file here wants it to answer, also where it did once and is over.
      const wanted = { ...fields, again: "true" };
      return await takeIn(file, wanted, { api, ...this.lanes, tell, signal: controller.signal });
    } catch (error) {
      const why = controller.signal.aborted ? controller.signal.reason : error;
      if (why.name === "AbortError") row.givenUp();
      else this.#refused(row, why, () => this.#again(row, file, fields, list));
      return null;
    } finally {
      this.#unfinished.delete(controller);
      void this.#page.count();
    }
  }

  async #dismiss(row, name, job) {
    try {
      if (job !== null) await this.#page.api.dismiss(job.job_id);
      this.#page.announcer.announce(t("dismissed", { name }));
      removeRow(row.element);
      void this.#page.count();
    } catch (error) {
      row.element.append(troubleLine(error));
      this.#page.onTokenNeeded(error);
    }
  }

  #refused(row, error, again) {
    row.refuse(error, again);
    this.#page.onTokenNeeded(error);
  }

  #again(row, file, fields, list) {
    row.element.remove();
    void this.send(file, fields, list);
  }
}
