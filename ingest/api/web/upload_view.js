// Upload files, dropped or chosen: a few are sent at a time, and each has a row with its progress.

import { namesIn, removeRow } from "./controls.js";
import { byId, el } from "./dom.js";
import { takeDrops } from "./drop.js";
import { say, t } from "./i18n.js";
import { takeIn } from "./intake.js";
import { Lanes } from "./lanes.js";
import { troubleLine } from "./trouble_line.js";
import { UploadRow } from "./upload_row.js";

// A browser has six connections to a server (HTTP/1.1); one stays free for the person's other requests.
const SENDING = 2;
const FOLLOWING = 3;

export class UploadView {
  #page;
  #rows = byId("files");
  #unfinished = new Map(); // AbortController of each file → whether the server has received the file

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

  /** Stop sending files: they would be refused, or sent in the name of the next person. */
  pause(error) {
    for (const [controller, isReceived] of this.#unfinished) if (!isReceived) controller.abort(error);
  }

  /** Remove the last person's files and fields, and stop sending. */
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
    for (const name of ["title", "link"]) byId(name).value = ""; // they belong to this file only
    for (const file of files) void this.send(file, fields, this.#rows);
    byId("files-title").hidden = false;
  }

  #fields() {
    const entries = [...new FormData(byId("upload-fields"))].map(([name, value]) => [name, value.trim()]);
    const { readers, ...others } = Object.fromEntries(entries);
    return { readers: namesIn(readers), ...others };
  }

  /** Send one file with a row in `list`; return its job, or null if it was refused. */
  async send(file, fields, list) {
    const { api, announcer } = this.#page;
    const row = new UploadRow(file.name, file.size, announcer, (job) => this.#dismiss(row, file.name, job));
    list.append(row.element);
    const controller = new AbortController();
    const giveUp = () => controller.abort();
    this.#unfinished.set(controller, false);
    try {
      const onStep = (step) => {
        if (step.received) this.#unfinished.set(controller, true);
        row.show(step, giveUp);
      };
      // A file that is uploaded here shall answer, even if its version has expired.
      const allFields = { ...fields, again: "true" };
      return await takeIn(file, allFields, { api, ...this.lanes, onStep, signal: controller.signal });
    } catch (error) {
      const cause = controller.signal.aborted ? controller.signal.reason : error;
      if (cause.name === "AbortError") row.showGivenUp();
      else this.#showRefusal(row, cause, () => this.#retry(row, file, fields, list));
      return null;
    } finally {
      this.#unfinished.delete(controller);
      void this.#page.updateCounts();
    }
  }

  async #dismiss(row, name, job) {
    try {
      if (job !== null) await this.#page.api.dismiss(job.job_id);
      this.#page.announcer.announce(t("dismissed", { name }));
      removeRow(row.element);
      void this.#page.updateCounts();
    } catch (error) {
      row.element.append(troubleLine(error));
      this.#page.onTokenNeeded(error);
    }
  }

  #showRefusal(row, error, retry) {
    row.showRefusal(error, retry);
    this.#page.onTokenNeeded(error);
  }

  #retry(row, file, fields, list) {
    row.element.remove();
    void this.send(file, fields, list);
  }
}
