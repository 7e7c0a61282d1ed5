// Drafts that wait for a second person, each with what screening found in it.

import { badge, factsOf, link, titleOf } from "./controls.js";
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
    this.#list = new PagedList(byId("queue"), { load, row, empty: "queue_empty", failed: onTokenNeeded });
  }

  show() {
    return this.#list.show();
  }

  #row(version) {
    const place = `#/review/${encodeURIComponent(version.document_id)}/${version.version}`;
    const values = { title: titleOf(version), version: version.version };
    const found = el("div", { class: "findings" });
    const row = el("li", { class: "card" }, el("h3", {}, titleOf(version), " ", badge(version.state)), factsOf(version), found, link("review_of", place, values));
    void this.#screening.run(() => this.#screen(version, found, row));
    return row;
  }

  async #screen(version, place, row) {
    if (!row.isConnected) return; // left meanwhile
    try {
      place.replaceChildren(...findingsView(await this.#api.findings(version)));
    } catch (error) {
      place.replaceChildren(troubleLine(error));
    }
  }
}
