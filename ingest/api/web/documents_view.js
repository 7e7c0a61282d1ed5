// The list of documents with the state of their latest version, with a search, a filter and an order.

import { badge, titleOf } from "./controls.js";
import { byId, el } from "./dom.js";
import { say, sayMoment } from "./i18n.js";
import { PagedList } from "./list_view.js";

const TYPING_MS = 300;

export class DocumentsView {
  #list;
  #form = byId("documents-search");
  #typingTimer;

  constructor({ api, onTokenNeeded }) {
    const load = async (cursor) => {
      const { documents, next } = await api.documents(Object.fromEntries(new FormData(this.#form)), cursor);
      return { items: documents, next };
    };
    this.#list = new PagedList(byId("documents"), { load, row, emptyKey: "documents_empty", countKey: "documents_shown", onError: onTokenNeeded });
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      void this.show();
    });
    this.#form.addEventListener("input", () => {
      clearTimeout(this.#typingTimer);
      this.#typingTimer = setTimeout(() => void this.show(), TYPING_MS);
    });
  }

  show() {
    clearTimeout(this.#typingTimer);
    return this.#list.show();
  }

  clear() {
    clearTimeout(this.#typingTimer);
    this.#form.reset();
  }
}

function row({ document_id: id, latest }) {
  const open = el("a", { href: `#/document/${encodeURIComponent(id)}` }, titleOf(latest));
  const version = say(el("span"), "version_n", { version: latest.version });
  const uploaded = sayMoment(el("span"), { at: latest.uploaded_at });
  const line = el("p", { class: "line muted" }, badge(latest.state), latest.product ?? "", version, uploaded, id);
  return el("li", { class: "card" }, el("h3", {}, open), line);
}
