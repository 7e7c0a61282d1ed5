// All documents with the state of their latest version.

import { badge, titleOf } from "./controls.js";
import { byId, el } from "./dom.js";
import { say } from "./i18n.js";
import { PagedList } from "./list_view.js";

export class DocumentsView {
  #list;

  constructor({ api, onTokenNeeded }) {
    const load = async (cursor) => {
      const { documents, next } = await api.documents(cursor);
      return { items: documents, next };
    };
    this.#list = new PagedList(byId("documents"), { load, row, empty: "documents_empty", failed: onTokenNeeded });
  }

  show() {
    return this.#list.show();
  }
}

function row({ document_id: id, latest }) {
  const open = el("a", { href: `#/document/${encodeURIComponent(id)}` }, titleOf(latest));
  const version = say(el("span", { class: "muted" }), "version_n", { version: latest.version });
  return el("li", { class: "card" }, el("h3", {}, open), el("p", { class: "line" }, badge(latest.state), version, el("span", { class: "muted" }, id)));
}
