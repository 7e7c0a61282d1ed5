// Jobs that failed: dead letters, which staff can retry, and files that could not be read.

import { button, detailView, removeRow } from "./controls.js";
import { byId, el } from "./dom.js";
import { has, say, t } from "./i18n.js";
import { watch } from "./intake.js";
import { PagedList } from "./list_view.js";
import { reasonKey } from "./progress.js";
import { troubleLine } from "./trouble_line.js";
import { UploadRow } from "./upload_row.js";

const STATES = ["dead", "failed"];

export class JobsView {
  #page;
  #list;

  constructor(page) {
    this.#page = page;
    const load = (cursor) => this.#load(cursor);
    const row = (job) => this.#row(job);
    this.#list = new PagedList(byId("jobs"), { load, row, emptyKey: "jobs_empty", onError: page.onTokenNeeded });
  }

  show() {
    return this.#list.show();
  }

  /** Return a page of dead letters, or of failed jobs behind them; `cursor` is `state/cursor of the API`. */
  async #load(cursor) {
    const [state, after] = cursor ? cursor.split("/") : [STATES[0], ""];
    const { jobs, next } = await this.#page.api.jobs(state, after);
    if (next !== null) return { items: jobs, next: `${state}/${next}` };
    if (state !== STATES[0]) return { items: jobs, next: null };
    const failed = await this.#load(`${STATES[1]}/`);
    return { items: [...jobs, ...failed.items], next: failed.next };
  }

  #row(job) {
    const name = job.file_name;
    const reason = job.state === "dead" ? "job_dead" : reasonKey(job.reason, has);
    const explanation = el("div", {}, say(el("p", { class: "problem" }), reason), detailView(job.detail));
    const row = el("li", { class: "card" }, el("h3", {}, name), explanation);
    const retry = button("job_again", () => void this.#retry(job, name, row), { values: { name } });
    const dismiss = button("dismiss", () => void this.#dismiss(job, row), { values: { name } });
    row.append(el("p", { class: "actions" }, retry, dismiss));
    return row;
  }

  async #dismiss(job, row) {
    try {
      await this.#page.api.dismiss(job.job_id);
      this.#page.announcer.announce(t("dismissed", { name: job.file_name }));
      removeRow(row);
      void this.#page.updateCounts();
    } catch (error) {
      row.append(troubleLine(error));
      this.#page.onTokenNeeded(error);
    }
  }

  async #retry(job, name, row) {
    const { api, announcer, lanes } = this.#page;
    const progress = new UploadRow(name, null, announcer);
    try {
      await api.retry(job.job_id);
      announcer.announce(t("job_sent"));
      row.replaceChildren(el("ul", {}, progress.element));
      await watch(job.job_id, { api, following: lanes.following, onStep: (step) => progress.show(step) });
    } catch (error) {
      row.append(troubleLine(error));
      this.#page.onTokenNeeded(error);
    }
  }
}
