// Drafts that wait for a second person, each with its screening findings.

import { badge, factsOf, link, namesOf, titleOf } from "./controls.js";
import { byId, el } from "./dom.js";
import { findingsView } from "./findings_view.js";
import { Lanes } from "./lanes.js";
import { PagedList } from "./list_view.js";
import { troubleLine } from "./trouble_line.js";

export class QueueView {
  #api;
  #list;
  #screening = new Lanes(1); // the server screens one text at a time

  constructor({ api, onTokenNeeded }) {
    this.#api = api;
    const load = async (cursor) => {
      const { versions, next } = await api.inState("indexed", cursor);
      return { items: versions, next };
    };
    const row = (version) => this.#row(version);
    this.#list = new PagedList(byId("queue"), { load, row, emptyKey: "queue_empty", onError: onTokenNeeded });
  }

  show() {
    return this.#list.show();
  }

  #row(version) {
    const review = link("review_of", `#/review/${encodeURIComponent(version.document_id)}/${version.version}`, namesOf(version));
    const findings = el("div", { class: "findings" });
    const title = el("h3", {}, titleOf(version), " ", badge(version.state));
    const row = el("li", { class: "card" }, title, factsOf(version), findings, review);
    void this.#screening.run(() => this.#screen(version, findings, row));
    return row;
  }

  async #screen(version, place, row) {
    if (!row.isConnected) return; // another view was opened
    try {
      place.replaceChildren(...findingsView(await this.#api.findings(version)));
    } catch (error) {
      place.replaceChildren(troubleLine(error));
    }
  }
}
