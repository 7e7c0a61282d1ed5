// One document: its versions, newest first, with the actions for each.

import { badge, button, detailView, factsOf, field, link, namesOf, titleOf } from "./controls.js";
import { askToConfirm } from "./confirm.js";
import { actionsFor, isApprover } from "./decisions.js";
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

  /** `upload(file, fields, list)` uploads a file as the upload view does. */
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
    byId("versions").replaceChildren(); // a form in an old card would be lost with the refresh
    byId("document-title").textContent ||= documentId; // it has the focus, so it must not be empty
    byId("document-delete").hidden = !isApprover(this.#page.me);
    await this.#refresh();
  }

  clear() {
    this.#id = null;
    this.#versions = [];
    byId("new-version").reset();
    byId("new-version").hidden = true; // until the previous version's metadata is loaded
    for (const id of ["document-title", "document-id", "document-files", "versions"]) byId(id).replaceChildren();
  }

  async #refresh() {
    const id = this.#id;
    const versions = await this.#page.api.versions(id);
    if (id !== this.#id) return; // another document was opened
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
    const allowed = new Set(actionsFor(this.#page.me, version));
    const review = `#/review/${encodeURIComponent(this.#id)}/${number}`;
    if (allowed.has("review")) actions.append(link("review", review));
    if (allowed.has("title")) actions.append(button("title_change", () => below.replaceChildren(this.#titleForm(version, below))));
    if (allowed.has("dates")) actions.append(button("dates", () => below.replaceChildren(this.#datesForm(version, below))));
    if (allowed.has("expire")) actions.append(button("expire", () => void this.#expire(version, below), { look: "danger" }));
    if (allowed.has("roll_back")) actions.append(button("roll_back", () => void this.#rollBack(version, below)));
    return card;
  }

  /** Return the history of a version, closed; it is loaded when the person opens it. */
  #history({ version }) {
    const list = el("ol", { class: "history" });
    const load = async () => list.replaceChildren(...(await this.#page.api.history(this.#id, version)).map(eventRow));
    const ontoggle = ({ target }) => target.open && void this.#resultOf(load, list);
    return el("details", { ontoggle }, say(el("summary"), "history"), list);
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
    const received = await this.#change(() => this.#page.api.setTitle(this.#id, version, title), "title_changed", below);
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
      void this.#change(() => this.#page.api.setDates(this.#id, version.version, dates), "dates_saved", below);
    });
    return form;
  }

  async #expire(version, below) {
    const reason = await askToConfirm("confirm_expire", namesOf(version));
    if (reason !== null) await this.#change(() => this.#page.api.expire(this.#id, version.version, reason), "expired", below);
  }

  async #rollBack(version, below) {
    const reason = await askToConfirm("confirm_roll_back", namesOf(version));
    if (reason === null) return;
    const received = await this.#change(() => this.#page.api.rollBack(this.#id, version.version, reason), "rolled_back", below);
    if (received) await this.#follow(received, titleOf(version), "back");
  }

  /** Show the progress of a version's job until it ends; the state `done` is shown as `end`. */
  async #follow({ job_id: jobId, version }, title, end = "done") {
    const { api, announcer, lanes } = this.#page;
    const id = this.#id;
    const row = new UploadRow(t("version_of", { title, version }), null, announcer);
    byId("document-files").replaceChildren(row.element);
    const onStep = (step) => row.show(step.state === "done" ? { ...step, state: end } : step);
    await this.#resultOf(() => watch(jobId, { api, following: lanes.following, onStep }), byId("document-files"));
    if (id === this.#id) await this.#refresh();
  }

  async #delete() {
    const reason = await askToConfirm("confirm_delete", { title: titleOf(this.#versions[0]) });
    if (reason !== null) await this.#change(() => this.#page.api.remove(this.#id, reason), "deleted", byId("document-files"));
  }

  async #newVersion() {
    const form = byId("new-version");
    const { file, link: page, effective_from: from, effective_until: until } = form.elements;
    const { title, product, language, readers } = this.#versions[0];
    const dates = { effective_from: from.value, effective_until: until.value };
    const id = this.#id;
    const fields = { document_id: id, title, product, language, readers, link: page.value.trim(), ...dates };
    const [chosen] = file.files;
    const job = await this.#upload(chosen, fields, byId("document-files"));
    if (!job || id !== this.#id) return;
    if (file.files[0] === chosen) form.reset(); // unless another file was chosen during the upload
    await this.#refresh();
  }

  /** Return the result of `request` after showing the text `key` in its version's card; null if it was refused. */
  async #change(request, key, below) {
    const id = this.#id;
    const changed = await this.#resultOf(request, below);
    if (!changed) return null;
    this.#page.announcer.announce(t(key, { version: changed.version }));
    if (id !== this.#id) return null; // another document was opened
    await this.#refresh();
    if (id !== this.#id) return null;
    const card = document.querySelector(`[data-version="${changed.version ?? this.#versions[0].version}"]`);
    card?.querySelector(".below").append(say(el("p", { class: "good" }), key, { version: changed.version }));
    card?.querySelector("h3").focus();
    return changed;
  }

  /** Return the result of `request`, or null after showing its error in `place`. */
  async #resultOf(request, place) {
    try {
      return await request();
    } catch (error) {
      place.replaceChildren(troubleLine(error));
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
