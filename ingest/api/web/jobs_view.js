// Jobs that did not end well: dead letters, which wait for somebody, and files that could not be read.

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
    this.#list = new PagedList(byId("jobs"), { load, row, empty: "jobs_empty", failed: page.onTokenNeeded });
  }

  show() {
    return this.#list.show();
  }

  /** Return a page of dead letters, and after the last of them pages of failed jobs. */
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
    const why = job.state === "dead" ? "job_dead" : reasonKey(job.reason, has);
    const said = el("div", {}, say(el("p", { class: "problem" }), why), detailView(job.detail));
    const row = el("li", { class: "card" }, el("h3", {}, name), said);
    const again = button("job_again", () => void this.#again(job, name, row), { values: { name } });
    const dismiss = button("dismiss", () => void this.#dismiss(job, row), { values: { name } });
    row.append(el("p", { class: "actions" }, again, dismiss));
    return row;
  }

  async #dismiss(job, row) {
    try {
      await this.#page.api.dismiss(job.job_id);
      this.#page.announcer.announce(t("dismissed", { name: job.file_name }));
      removeRow(row);
      void this.#page.count();
    } catch (error) {
      row.append(troubleLine(error));
      this.#page.onTokenNeeded(error);
    }
  }

  async #again(job, name, row) {
    const { api, announcer, lanes } = this.#page;
    const progress = new UploadRow(name, null, announcer);
    try {
      await api.retry(job.job_id);
      announcer.announce(t("job_sent"));
      row.replaceChildren(el("ul", {}, progress.element));
      await watch(job.job_id, { api, following: lanes.following, tell: (step) => progress.show(step) });
    } catch (error) {
      row.append(troubleLine(error));
      this.#page.onTokenNeeded(error);
    }
  }
}
