// A version before its approval: the original page by page beside the passages that begin there, and what was found.

import { badge, button, factsOf, titleOf } from "./controls.js";
import { askToConfirm } from "./confirm.js";
import { approval, isApprover } from "./decisions.js";
import { byId, el } from "./dom.js";
import { findingsView } from "./findings_view.js";
import { say } from "./i18n.js";
import { PagePane } from "./page_pane.js";
import { troubleLine } from "./trouble.js";

export class ReviewView {
  #page;
  #pane;
  #version = null;
  #passages = [];
  #at = 1;
  #pages = 1;
  #screened = false;
  #blocked = false;
  #latest = 0;

  constructor(page) {
    this.#page = page;
    this.#pane = new PagePane(byId("original"), (number, signal) =>
      page.api.page(this.#version.document_id, this.#version.version, number, signal),
    );
    byId("page-before").addEventListener("click", () => void this.#turn(this.#at - 1));
    byId("page-after").addEventListener("click", () => void this.#turn(this.#at + 1));
    byId("page-number").addEventListener("change", (event) => void this.#turn(Number(event.target.value)));
  }

  /** Show version `number` of a document. */
  async show(documentId, number) {
    this.clear();
    say(byId("review-title"), "review_title", { version: number, title: documentId }); // the focus is there already
    const mine = ++this.#latest;
    const version = await this.#page.api.version(documentId, number);
    if (mine !== this.#latest) return; // another one was opened meanwhile
    this.#version = version;
    this.#head();
    byId("review-passages").replaceChildren(say(el("p", { class: "muted" }), "loading"));
    await Promise.all([this.#turn(1), this.#read(version), this.#screen(version)]);
  }

  /** Forget the version that was shown: nobody may decide about one while looking at another. */
  clear() {
    this.#latest += 1;
    this.#pane.clear();
    this.#version = null;
    this.#passages = [];
    this.#pages = 1;
    this.#screened = this.#blocked = false;
    byId("decision").hidden = true;
    byId("pager").hidden = true;
    for (const id of ["review-title", "review-facts", "review-findings", "review-passages", "decision-said"]) byId(id).replaceChildren();
  }

  #head() {
    const version = this.#version;
    say(byId("review-title"), "review_title", { version: version.version, title: titleOf(version) });
    const documentLink = el("a", { href: `#/document/${encodeURIComponent(version.document_id)}` }, version.document_id);
    byId("review-facts").replaceChildren(el("p", { class: "line" }, badge(version.state), documentLink), factsOf(version));
    this.#decide();
  }

  async #read(version) {
    try {
      const found = await this.#page.api.passages(version.document_id, version.version);
      if (version !== this.#version) return;
      this.#passages = found;
      this.#list();
    } catch (error) {
      if (version !== this.#version) return;
      byId("review-passages").replaceChildren(troubleLine(error));
      this.#page.onTokenNeeded(error);
    }
  }

  async #screen(version) {
    const place = byId("review-findings");
    place.replaceChildren(say(el("p", { class: "muted" }), "findings_loading"));
    try {
      const found = await this.#page.api.findings(version.document_id, version.version);
      if (version !== this.#version) return;
      place.replaceChildren(...findingsView(found, (finding) => void this.#lead(finding)));
      this.#screened = true;
      this.#blocked = found.findings.some(({ blocks }) => blocks);
      this.#decide();
    } catch (error) {
      if (version !== this.#version) return;
      place.replaceChildren(troubleLine(error));
    }
  }

  /** Turn to the page of a finding and focus its passage. */
  async #lead({ n, page }) {
    if (page !== null && page !== this.#at) await this.#turn(page);
    const passage = byId(`passage-${n}`);
    passage?.scrollIntoView({ block: "center" });
    passage?.focus();
  }

  async #turn(number) {
    const wanted = Math.min(Math.max(Math.trunc(number) || 1, 1), Math.max(this.#pages, 1));
    this.#at = number === 1 ? 1 : wanted;
    this.#list();
    const pages = await this.#pane.show(this.#at);
    if (pages !== null) this.#pages = pages;
    this.#pager();
  }

  #pager() {
    say(byId("page-of"), "page_of", { page: this.#at, pages: this.#pages });
    byId("page-before").disabled = this.#at <= 1;
    byId("page-after").disabled = this.#at >= this.#pages;
    byId("pager").hidden = this.#pages <= 1;
    Object.assign(byId("page-number"), { value: this.#at, max: this.#pages });
  }

  #list() {
    if (!this.#passages.length) return;
    const here = this.#passages.filter(({ page }) => (page ?? 1) === this.#at);
    const empty = here.length ? [] : [say(el("p", { class: "muted" }), "page_without")];
    byId("review-passages").replaceChildren(...empty, ...here.map(passageView));
  }

  #decide() {
    const bar = byId("decision");
    const version = this.#version;
    bar.hidden = version.state !== "indexed";
    if (bar.hidden) return;
    const { allowed, key, values } = approval(this.#page.me, version, { screened: this.#screened, blocked: this.#blocked });
    const approve = button(key, () => void this.#approve(), { values, look: "primary", id: "approve" });
    approve.disabled = !allowed;
    const reject = isApprover(this.#page.me) ? button("reject", () => void this.#reject(), { look: "danger" }) : "";
    bar.replaceChildren(approve, reject);
  }

  #approve() {
    return this.#change(() => this.#page.api.approve(this.#version), (changed) => ["approved", { at: { at: changed.visible_from } }]);
  }

  async #reject() {
    const { document_id: id, version } = this.#version;
    const reason = await askToConfirm("confirm_reject", { version });
    if (reason !== null) await this.#change(() => this.#page.api.reject(id, version, reason), () => ["rejected", {}]);
  }

  async #change(ask, saidOf) {
    const said = byId("decision-said");
    const version = this.#version;
    try {
      const changed = await ask();
      const [key, values] = saidOf(changed);
      this.#page.announcer.announce(key, values);
      if (version !== this.#version) return; // another one is shown by now
      Object.assign(version, changed); // the same object: what still loads is of this version
      said.replaceChildren(say(el("p", { class: "good" }), key, values));
      this.#head();
      byId("review-title").focus();
    } catch (error) {
      (version === this.#version ? said : byId("view-problem")).replaceChildren(troubleLine(error));
      this.#page.onTokenNeeded(error);
      if (error.status === 409) await this.#lookAgain(version); // somebody has decided, or changed its dates
    }
  }

  /** Show the facts of the version as they are by now. */
  async #lookAgain(version) {
    const present = await this.#page.api.version(version.document_id, version.version).catch(() => version);
    if (version !== this.#version) return;
    Object.assign(version, present);
    this.#head();
  }
}

function passageView({ n, section, text, language }) {
  const heading = say(el("h4"), "passage_n", { n });
  return el("li", { class: "passage", id: `passage-${n}`, tabindex: "-1" }, heading, el("p", { class: "muted" }, section), el("p", { class: "text", lang: language }, text));
}
