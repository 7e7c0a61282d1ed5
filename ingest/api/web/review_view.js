// A version before its approval: its passages as customers will be shown them, what screening found, and what changed.

import { badge, factsOf, named, titleOf } from "./controls.js";
import { changesView } from "./changes_view.js";
import { askToConfirm } from "./confirm.js";
import { approval, isApprover } from "./decisions.js";
import { byId, el } from "./dom.js";
import { findingsView } from "./findings_view.js";
import { say, t } from "./i18n.js";
import { PassageList } from "./passage_list.js";
import { troubleLine } from "./trouble_line.js";

const SAVED_MS = 60_000;

export class ReviewView {
  #page;
  #list;
  #version = null;
  #screened = false;
  #blocked = false;
  #latest = 0;

  constructor(page) {
    this.#page = page;
    const { api } = page;
    this.#list = new PassageList(byId("review-passages"), {
      load: (cursor) => api.passages(this.#version, cursor),
      draw: (number, signal) => api.page(this.#version, number, signal),
      onSeen: () => this.#decide(),
      onTrouble: page.onTokenNeeded,
    });
    byId("download").addEventListener("click", () => void this.#download());
    byId("approve").addEventListener("click", () => void this.#approve());
    byId("reject").addEventListener("click", () => void this.#reject());
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
    byId("review-left-out").replaceChildren(...leftOutView(version.left_out));
    byId("download").hidden = false;
    await Promise.all([this.#list.show(version), this.#compare(version), this.#screen(version)]);
  }

  /** Forget the version that was shown: nobody may decide about one while looking at another. */
  clear() {
    this.#latest += 1;
    this.#list.clear();
    this.#version = null;
    this.#screened = this.#blocked = false;
    byId("decision").hidden = byId("download").hidden = byId("approve").disabled = true;
    for (const id of ["review-title", "review-facts", "review-left-out", "review-findings", "review-changes", "decision-said"]) byId(id).replaceChildren();
  }

  #head() {
    const version = this.#version;
    say(byId("review-title"), "review_title", { version: version.version, title: titleOf(version) });
    const documentLink = el("a", { href: `#/document/${encodeURIComponent(version.document_id)}` }, version.document_id);
    byId("review-facts").replaceChildren(el("p", { class: "line" }, badge(version.state), documentLink), factsOf(version));
    this.#decide();
  }

  #compare(version) {
    return this.#report(version, byId("review-changes"), "changes_loading", this.#page.api.changes(version), (found) => {
      this.#list.mark(found.changes);
      return changesView(found, (n) => void this.#list.lead(n));
    });
  }

  #screen(version) {
    return this.#report(version, byId("review-findings"), "findings_loading", this.#page.api.findings(version), (found) => {
      this.#screened = true;
      this.#blocked = found.findings.some(({ blocks }) => blocks);
      this.#decide();
      return findingsView(found, ({ n }) => void this.#list.lead(n));
    });
  }

  /** Say `loading` in `place`, and then what `view` makes of what was `asked`, or why that did not come. */
  async #report(version, place, loading, asked, view) {
    place.replaceChildren(say(el("p", { class: "muted" }), loading));
    try {
      const found = await asked;
      if (version === this.#version) place.replaceChildren(...view(found));
    } catch (error) {
      if (version === this.#version) place.replaceChildren(troubleLine(error));
    }
  }

  async #download() {
    const version = this.#version;
    try {
      const address = URL.createObjectURL(await this.#page.api.original(version));
      el("a", { href: address, download: version.file_name }).click();
      setTimeout(() => URL.revokeObjectURL(address), SAVED_MS); // the browser saves it in the background
    } catch (error) {
      if (version === this.#version) byId("decision-said").replaceChildren(troubleLine(error));
      this.#page.onTokenNeeded(error);
    }
  }

  #decide() {
    const version = this.#version;
    byId("decision").hidden = version.state !== "indexed";
    const looked = { screened: this.#screened, blocked: this.#blocked, unseen: version.passages - this.#list.seen };
    const { allowed, key, values } = approval(this.#page.me, version, looked);
    say(byId("approve"), key, values).disabled = !allowed;
    byId("reject").hidden = !isApprover(this.#page.me);
  }

  #approve() {
    const said = (changed) => ["approved", { ...named(changed), at: { at: changed.visible_from } }];
    return this.#change(() => this.#page.api.approve(this.#version), said);
  }

  async #reject() {
    const { document_id: id, version } = this.#version;
    const reason = await askToConfirm("confirm_reject", named(this.#version));
    if (reason !== null) await this.#change(() => this.#page.api.reject(id, version, reason), (changed) => ["rejected", named(changed)]);
  }

  async #change(ask, saidOf) {
    const said = byId("decision-said");
    const version = this.#version;
    try {
      const changed = await ask();
      const [key, values] = saidOf(changed);
      this.#page.announcer.announce(t(key, values));
      const next = await this.#next(version).catch(() => "#/queue"); // which says what is wrong
      if (version !== this.#version) return void this.#page.count(); // another one is shown by now
      this.#page.said.push(say(el("p", { class: "good" }), key, values));
      location.hash = next;
    } catch (error) {
      (version === this.#version ? said : byId("view-problem")).replaceChildren(troubleLine(error));
      this.#page.onTokenNeeded(error);
      if (error.status === 409) await this.#lookAgain(version); // somebody has decided, or changed its dates
    }
  }

  /** Return the place of the draft behind `version` that this person may approve, or of the list where there is none. */
  async #next({ document_id: id, version }) {
    for (const after of [`${id}/${version}`, ""]) {
      const { versions } = await this.#page.api.inState("indexed", after);
      const draft = versions.find((one) => approval(this.#page.me, one, { screened: true }).allowed);
      if (draft) return `#/review/${encodeURIComponent(draft.document_id)}/${draft.version}`;
    }
    return "#/queue";
  }

  /** Show the facts of the version as they are by now. */
  async #lookAgain(version) {
    const present = await this.#page.api.version(version.document_id, version.version).catch(() => version);
    if (version !== this.#version) return;
    Object.assign(version, present);
    this.#head();
  }
}

/** Return elements that say how much text the file itself hides, by its kind. */
function leftOutView(counts) {
  const kinds = Object.entries(counts);
  if (!kinds.length) return [];
  const pieces = kinds.map(([kind, count]) => say(el("span", { class: "badge" }), `left_out_${kind}`, { count }));
  return [say(el("span"), "left_out"), ...pieces];
}
