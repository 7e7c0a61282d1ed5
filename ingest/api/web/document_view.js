// One document: its versions, newest first, and what can be done with each.

import { badge, button, detailView, factsOf, field, link, named, titleOf } from "./controls.js";
import { askToConfirm } from "./confirm.js";
import { isApprover, offered } from "./decisions.js";
import { byId, el } from "./dom.js";
import { say, t } from "./i18n.js";
import { watch } from "./intake.js";
import { troubleLine } from "./trouble_line.js";
import { UploadRow } from "./upload_row.js";

export class DocumentView {
  #page;
  #upload;
  #id = null;
  #versions = [];

  /** `upload(file, fields, list)` takes a file in as the upload view does. */
  constructor(page, upload) {
    this.#page = page;
    this.#upload = upload;
    byId("new-version").addEventListener("submit", (event) => {
      event.preventDefault();
      void this.#newVersion();
    });
    byId("document-delete").addEventListener("click", () => void this.#delete());
  }

  async show(documentId) {
    if (documentId !== this.#id) this.clear();
    this.#id = documentId;
    byId("versions").replaceChildren(); // nobody begins with a card that is about to be renewed
    byId("document-title").textContent ||= documentId; // the focus is there already
    byId("document-delete").hidden = !isApprover(this.#page.me);
    await this.#refresh();
  }

  clear() {
    this.#id = null;
    this.#versions = [];
    byId("new-version").reset();
    byId("new-version").hidden = true; // what a new version takes from the one before it is not known yet
    for (const id of ["document-title", "document-id", "document-files", "versions"]) byId(id).replaceChildren();
  }

  async #refresh() {
    const id = this.#id;
    const versions = await this.#page.api.versions(id);
    if (id !== this.#id) return; // another one was opened meanwhile
    this.#versions = versions.reverse();
    const [latest] = this.#versions;
    byId("document-title").textContent = titleOf(latest);
    byId("document-id").textContent = this.#id;
    say(byId("new-version-text"), "document_new_version_text", { version: latest.version });
    byId("new-link").defaultValue = latest.link ?? "";
    byId("versions").replaceChildren(...this.#versions.map((version) => this.#card(version)));
    byId("new-version").hidden = false;
  }

  #card(version) {
    const { version: number } = version;
    const values = { version: number };
    const title = el("h3", { tabindex: "-1" }, say(el("span"), "version_n", values), " ", badge(version.state));
    const below = el("div", { class: "below" });
    const actions = el("p", { class: "actions" });
    const card = el("li", { class: "card", "data-version": number }, title, factsOf(version), this.#history(version), actions, below);
    const offers = new Set(offered(this.#page.me, version));
    const place = `#/review/${encodeURIComponent(this.#id)}/${number}`;
    if (offers.has("review")) actions.append(link("review", place));
    if (offers.has("title")) actions.append(button("title_change", () => below.replaceChildren(this.#titleForm(version, below))));
    if (offers.has("dates")) actions.append(button("dates", () => below.replaceChildren(this.#datesForm(version, below))));
    if (offers.has("expire")) actions.append(button("expire", () => void this.#expire(version, below), { look: "danger" }));
    if (offers.has("roll_back")) actions.append(button("roll_back", () => void this.#rollBack(version, below)));
    return card;
  }

  /** Return what was done with a version, by whom and why; it is asked for when somebody opens it. */
  #history({ version }) {
    const place = el("ol", { class: "history" });
    const asked = async () => place.replaceChildren(...(await this.#page.api.history(this.#id, version)).map(eventRow));
    const toggled = ({ target }) => target.open && void this.#tried(place, asked);
    return el("details", { ontoggle: toggled }, say(el("summary"), "history"), place);
  }

  #titleForm(version, below) {
    const form = el("form", { class: "fields" }, field("title", "title", { value: titleOf(version), maxlength: 300, required: true }), say(el("button", { class: "primary" }), "title_save"));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      void this.#setTitle(version, form.elements.title.value.trim(), below);
    });
    return form;
  }

  async #setTitle({ version }, title, below) {
    const received = await this.#change(below, () => this.#page.api.setTitle(this.#id, version, title), "title_changed");
    if (received) await this.#follow(received, title);
  }

  #datesForm(version, below) {
    const from = field("effective_from", "effective_from", { type: "date", value: version.effective_from });
    const until = field("effective_until", "effective_until", { type: "date", value: version.effective_until });
    const save = say(el("button", { class: "primary" }), "dates_save");
    const form = el("form", { class: "fields" }, from, until, save);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const { effective_from: first, effective_until: last } = form.elements;
      const dates = { effective_from: first.value || null, effective_until: last.value || null };
      void this.#change(below, () => this.#page.api.setDates(this.#id, version.version, dates), "dates_saved");
    });
    return form;
  }

  async #expire(one, below) {
    const { version } = one;
    const reason = await askToConfirm("confirm_expire", named(one));
    if (reason !== null) await this.#change(below, () => this.#page.api.expire(this.#id, version, reason), "expired");
  }

  async #rollBack(one, below) {
    const { version } = one;
    const reason = await askToConfirm("confirm_roll_back", named(one));
    if (reason === null) return;
    const received = await this.#change(below, () => this.#page.api.rollBack(this.#id, version, reason), "rolled_back");
    if (received) await this.#follow(received, titleOf(one), "back");
  }

  /** Show how far the job of a version is; its `end` is shown as that of `done`. */
  async #follow({ job_id: jobId, version }, title, end = "done") {
    const { api, announcer, lanes } = this.#page;
    const id = this.#id;
    const row = new UploadRow(t("version_of", { title, version }), null, announcer);
    byId("document-files").replaceChildren(row.element);
    await this.#tried(byId("document-files"), () => watch(jobId, { api, following: lanes.following, tell: (step) => row.show(step.state === "done" ? { ...step, state: end } : step) }));
    if (id === this.#id) await this.#refresh();
  }

  async #delete() {
    const reason = await askToConfirm("confirm_delete", { title: titleOf(this.#versions[0]) });
    if (reason !== null) await this.#change(byId("document-files"), () => this.#page.api.remove(this.#id, reason), "deleted");
  }

  async #newVersion() {
    const form = byId("new-version");
    const { file, link: page, effective_from: from, effective_until: until } = form.elements;
    const { title, product, language, readers } = this.#versions[0];
    const dates = { effective_from: from.value, effective_until: until.value };
    const id = this.#id;
    const fields = { document_id: id, title, product, language, readers, link: page.value.trim(), ...dates };
    const [sent] = file.files;
    const job = await this.#upload(sent, fields, byId("document-files"));
    if (!job || id !== this.#id) return;
    if (file.files[0] === sent) form.reset(); // another one may have been chosen meanwhile
    await this.#refresh();
  }

  async #change(below, ask, key) {
    const id = this.#id;
    const changed = await this.#tried(below, ask);
    if (!changed) return null;
    this.#page.announcer.announce(t(key, { version: changed.version }));
    if (id !== this.#id) return null; // another document is shown by now
    await this.#refresh();
    if (id !== this.#id) return null;
    const card = document.querySelector(`[data-version="${changed.version ?? this.#versions[0].version}"]`);
    card?.querySelector(".below").append(say(el("p", { class: "good" }), key, { version: changed.version }));
    card?.querySelector("h3").focus();
    return changed;
  }

  /** Return what `ask` returns, or null after saying in `below` why it was refused. */
  async #tried(below, ask) {
    try {
      return await ask();
    } catch (error) {
      below.replaceChildren(troubleLine(error));
      this.#page.onTokenNeeded(error);
      return null;
    }
  }
}

function eventRow({ event, by, at, detail }) {
  const when = say(el("span", { class: "muted" }), "who_when", { who: by, when: { at } });
  return el("li", {}, say(el("strong"), `event_${event}`), " ", when, event === "dated" ? daysView(detail) : detailView(detail));
}

function daysView(days) {
  const [from, until] = days.split("/").map((day) => (day ? { date: day } : { said: "date_open" }));
  return say(el("span", { class: "muted detail" }), "dates_of", { from, until });
}
