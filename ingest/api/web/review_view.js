// A version before its approval: its passages as customers will see them, the screening findings, and the changes.

import { badge, factsOf, namesOf, titleOf } from "./controls.js";
import { changesView } from "./changes_view.js";
import { askToConfirm } from "./confirm.js";
import { approval, isApprover } from "./decisions.js";
import { byId, el } from "./dom.js";
import { findingsView } from "./findings_view.js";
import { say, t } from "./i18n.js";
import { PassageList } from "./passage_list.js";
import { troubleLine } from "./trouble_line.js";

const SAVE_MS = 60_000;

export class ReviewView {
  #page;
  #list;
  #version = null;
  #isScreened = false;
  #isBlocked = false;
  #showCount = 0;

  constructor(page) {
    this.#page = page;
    const { api } = page;
    this.#list = new PassageList(byId("review-passages"), {
      load: (cursor) => api.passages(this.#version, cursor),
      draw: (number, signal) => api.page(this.#version, number, signal),
      onSeen: () => this.#updateDecision(),
      onTrouble: page.onTokenNeeded,
    });
    byId("download").addEventListener("click", () => void this.#download());
    byId("approve").addEventListener("click", () => void this.#approve());
    byId("reject").addEventListener("click", () => void this.#reject());
  }

  /** Show version `number` of a document. */
  async show(documentId, number) {
    this.clear();
    say(byId("review-title"), "review_title", { version: number, title: documentId }); // it has the focus already
    const showNumber = ++this.#showCount;
    const version = await this.#page.api.version(documentId, number);
    if (showNumber !== this.#showCount) return; // another version was opened
    this.#version = version;
    this.#showFacts();
    byId("review-left-out").replaceChildren(...leftOutView(version.left_out));
    byId("download").hidden = false;
    await Promise.all([this.#list.show(version), this.#compare(version), this.#screen(version)]);
  }

  /** Remove the version that was shown, so that no decision is about another version than the visible one. */
  clear() {
    this.#showCount += 1;
    this.#list.clear();
    this.#version = null;
    this.#isScreened = this.#isBlocked = false;
    byId("decision").hidden = byId("download").hidden = byId("approve").disabled = true;
    for (const id of ["review-title", "review-facts", "review-left-out", "review-findings", "review-changes", "decision-said"]) byId(id).replaceChildren();
  }

  #showFacts() {
    const version = this.#version;
    say(byId("review-title"), "review_title", { version: version.version, title: titleOf(version) });
    const documentLink = el("a", { href: `#/document/${encodeURIComponent(version.document_id)}` }, version.document_id);
    byId("review-facts").replaceChildren(el("p", { class: "line" }, badge(version.state), documentLink), factsOf(version));
    this.#updateDecision();
  }

  #compare(version) {
    const view = (reply) => {
      this.#list.mark(reply.changes);
      return changesView(reply, (n) => void this.#list.focusPassage(n));
    };
    return this.#load(this.#page.api.changes(version), view, { version, place: byId("review-changes"), loading: "changes_loading" });
  }

  #screen(version) {
    const view = (reply) => {
      this.#isScreened = true;
      this.#isBlocked = reply.findings.some(({ blocks }) => blocks);
      this.#updateDecision();
      return findingsView(reply, ({ n }) => void this.#list.focusPassage(n));
    };
    return this.#load(this.#page.api.findings(version), view, { version, place: byId("review-findings"), loading: "findings_loading" });
  }

  /** Show the text `loading` in `place`, then the elements `view(reply)` for the reply of a request, or its error. */
  async #load(request, view, { version, place, loading }) {
    place.replaceChildren(say(el("p", { class: "muted" }), loading));
    try {
      const reply = await request;
      if (version === this.#version) place.replaceChildren(...view(reply));
    } catch (error) {
      if (version === this.#version) place.replaceChildren(troubleLine(error));
    }
  }

  async #download() {
    const version = this.#version;
    try {
      const address = URL.createObjectURL(await this.#page.api.original(version));
      el("a", { href: address, download: version.file_name }).click();
      setTimeout(() => URL.revokeObjectURL(address), SAVE_MS); // the browser saves the file in the background
    } catch (error) {
      if (version === this.#version) byId("decision-said").replaceChildren(troubleLine(error));
      this.#page.onTokenNeeded(error);
    }
  }

  #updateDecision() {
    const version = this.#version;
    byId("decision").hidden = version.state !== "indexed";
    const unseen = version.passages - this.#list.seenCount;
    const { allowed, key, values } = approval(this.#page.me, version, { screened: this.#isScreened, blocked: this.#isBlocked, unseen });
    say(byId("approve"), key, values).disabled = !allowed;
    byId("reject").hidden = !isApprover(this.#page.me);
  }

  #approve() {
    const messageOf = (changed) => ["approved", { ...namesOf(changed), at: { at: changed.visible_from } }];
    return this.#change(() => this.#page.api.approve(this.#version), messageOf);
  }

  async #reject() {
    const { document_id: id, version } = this.#version;
    const reason = await askToConfirm("confirm_reject", namesOf(this.#version));
    const messageOf = (changed) => ["rejected", namesOf(changed)];
    if (reason !== null) await this.#change(() => this.#page.api.reject(id, version, reason), messageOf);
  }

  /** Send the decision `request()`, announce the text `messageOf(changed version)`, and open the next draft. */
  async #change(request, messageOf) {
    const version = this.#version;
    try {
      const changed = await request();
      const [key, values] = messageOf(changed);
      this.#page.announcer.announce(t(key, values));
      const next = await this.#nextAddress(version).catch(() => "#/queue"); // the queue shows the error
      if (version !== this.#version) return void this.#page.updateCounts(); // another version was opened
      this.#page.messages.push(say(el("p", { class: "good" }), key, values));
      location.hash = next;
    } catch (error) {
      byId(version === this.#version ? "decision-said" : "view-problem").replaceChildren(troubleLine(error));
      this.#page.onTokenNeeded(error);
      if (error.status === 409) await this.#reload(version); // another person has decided, or changed its dates
    }
  }

  /** Return the address of the next draft behind `version` that this person may approve, or else of the queue. */
  async #nextAddress({ document_id: id, version }) {
    for (const after of [`${id}/${version}`, ""]) {
      const { versions } = await this.#page.api.inState("indexed", after);
      const draft = versions.find((one) => approval(this.#page.me, one, { screened: true }).allowed);
      if (draft) return `#/review/${encodeURIComponent(draft.document_id)}/${draft.version}`;
    }
    return "#/queue";
  }

  /** Load the version again and show its facts. */
  async #reload(version) {
    const current = await this.#page.api.version(version.document_id, version.version).catch(() => version);
    if (version !== this.#version) return;
    Object.assign(version, current);
    this.#showFacts();
  }
}

/** Return elements with the number of hidden texts in the file, by kind. */
function leftOutView(counts) {
  const kinds = Object.entries(counts);
  if (!kinds.length) return [];
  const pieces = kinds.map(([kind, count]) => say(el("span", { class: "badge" }), `left_out_${kind}`, { count }));
  return [say(el("span"), "left_out"), ...pieces];
}
