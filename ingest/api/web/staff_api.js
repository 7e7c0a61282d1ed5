// The client of the documents API: it throws problem documents as errors and retries nothing.

import { Problem, TokenNeeded, bodyOf, parsed, problemOf, send } from "./api.js";
import { ConnectionLost } from "./event_stream.js";

const PASSAGES_AT_ONCE = 100;
// The server's longest deadline is a minute, for a page of the original.
const DEADLINE_MS = 90_000;
const FILE_DEADLINE_MS = 30 * 60_000; // 100 MiB over a slow line

export class Api {
  #token = null;
  signIn = 0; // number of the current sign-in, by which the errors of an earlier one are recognised

  /** Use this token, which is kept in memory only; with null, the session's cookie is used. */
  useToken(token) {
    this.#token = token;
    this.signIn += 1;
  }

  /** Return a token of the uploader (`staff`) or the `approver` of the demo (`make run`). */
  async demoToken(role) {
    return (await this.#send("POST", "/demo/login", { role })).token;
  }

  /** Return the name of the person who has signed in at the identity provider; null without one. */
  async signedIn() {
    return (await this.#get("/oidc/session")).name;
  }

  me() {
    return this.#get("/v1/me");
  }

  documents({ words: q, state, sort }, cursor = "") {
    return this.#get(`/v1/documents?${new URLSearchParams({ q, sort, cursor, ...(state && { state }) })}`);
  }

  /** Return the number of `drafts` that wait for approval and of versions that have `failed`. */
  counts() {
    return this.#get("/v1/versions/counts");
  }

  inState(state, cursor = "") {
    return this.#get(`/v1/versions?state=${state}&cursor=${encodeURIComponent(cursor)}`);
  }

  async versions(documentId) {
    return (await this.#get(`${documentAt(documentId)}/versions`)).versions;
  }

  version(documentId, version) {
    return this.#get(versionAt(documentId, version));
  }

  /** Return `{passages, next}`: the passages behind the one with number `cursor`. */
  passages({ document_id: documentId, version }, cursor) {
    return this.#get(`${versionAt(documentId, version)}/passages?limit=${PASSAGES_AT_ONCE}&cursor=${cursor}`);
  }

  findings({ document_id: documentId, version }) {
    return this.#get(`${versionAt(documentId, version)}/findings`);
  }

  changes({ document_id: documentId, version }) {
    return this.#get(`${versionAt(documentId, version)}/changes`);
  }

  /** Return a page of a PDF as `{pages, picture, isIncomplete}`, the picture as a Blob. */
  async page({ document_id: documentId, version }, number, signal) {
    const signals = AbortSignal.any([signal, AbortSignal.timeout(DEADLINE_MS)]);
    const response = await this.#request(`${versionAt(documentId, version)}/pages/${number}`, { signal: signals });
    const pages = Number(response.headers.get("x-page-count"));
    return { pages, picture: await response.blob(), isIncomplete: response.headers.has("x-picture-incomplete") };
  }

  /** Return the original as a Blob, since a link cannot carry the token. */
  async original({ document_id: documentId, version }) {
    const signal = AbortSignal.timeout(FILE_DEADLINE_MS);
    return (await this.#request(`${versionAt(documentId, version)}/original`, { signal })).blob();
  }

  async history(documentId, version) {
    return (await this.#get(`${versionAt(documentId, version)}/history`)).events;
  }

  /** Approve a version as it was shown; if its dates or its title have changed, the server refuses (`dates_changed`). */
  approve({ document_id: documentId, version, effective_from, effective_until, title }) {
    return this.#send("POST", `${versionAt(documentId, version)}/approve`, { effective_from, effective_until, title });
  }

  reject(documentId, version, reason) {
    return this.#send("POST", `${versionAt(documentId, version)}/reject`, { reason });
  }

  expire(documentId, version, reason) {
    return this.#send("POST", `${versionAt(documentId, version)}/expire`, { reason });
  }

  setDates(documentId, version, dates) {
    return this.#send("PUT", `${versionAt(documentId, version)}/dates`, dates);
  }

  setTitle(documentId, version, title) {
    return this.#send("PUT", `${versionAt(documentId, version)}/title`, { title });
  }

  rollBack(documentId, toVersion, reason) {
    return this.#send("POST", `${documentAt(documentId)}/rollback`, { to_version: toVersion, reason });
  }

  remove(documentId, reason) {
    return this.#send("DELETE", documentAt(documentId), { reason });
  }

  jobs(state, cursor = "") {
    return this.#get(`/v1/jobs?state=${state}&cursor=${encodeURIComponent(cursor)}`);
  }

  retry(jobId) {
    return this.#send("POST", `/v1/jobs/${jobId}/retry`);
  }

  dismiss(jobId) {
    return this.#send("POST", `/v1/jobs/${jobId}/dismiss`);
  }

  async job(jobId, signal) {
    const signals = [signal, AbortSignal.timeout(DEADLINE_MS)].filter(Boolean);
    return bodyOf(await this.#request(`/v1/jobs/${jobId}`, { signal: AbortSignal.any(signals) }));
  }

  search({ question, groups, asOf }) {
    const query = new URLSearchParams({ q: question });
    if (asOf) query.set("as_of", asOf);
    for (const group of groups) query.append("as_group", group);
    return this.#get(`/v1/search?${query}`);
  }

  /** Upload a form; call `onProgress` with the share that is sent, which only XMLHttpRequest reports. */
  upload(form, onProgress, signal) {
    return new Promise((resolve, reject) => {
      const { signIn } = this;
      const request = new XMLHttpRequest();
      request.open("POST", "/v1/documents");
      if (this.#token !== null) request.setRequestHeader("authorization", `Bearer ${this.#token}`);
      request.upload.addEventListener("progress", (event) => event.lengthComputable && onProgress(event.loaded / event.total));
      request.addEventListener("load", () => {
        const body = parsed(request.responseText);
        if (request.status === 202) resolve(body);
        else reject(request.status === 401 ? new TokenNeeded(signIn) : new Problem({ status: request.status, ...body }));
      });
      request.timeout = FILE_DEADLINE_MS;
      for (const type of ["error", "timeout"]) request.addEventListener(type, () => reject(new ConnectionLost(type)));
      request.addEventListener("abort", () => reject(new DOMException("given up", "AbortError")));
      signal?.addEventListener("abort", () => request.abort(), { once: true });
      request.send(form);
    });
  }

  #get(path) {
    return this.#json(path, {});
  }

  #send(method, path, body) {
    const json = body === undefined ? {} : { headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
    return this.#json(path, { method, ...json });
  }

  async #json(path, options) {
    return bodyOf(await this.#request(path, { ...options, signal: AbortSignal.timeout(DEADLINE_MS) }));
  }

  async #request(path, options = {}) {
    const { signIn } = this;
    const token = this.#token === null ? {} : { authorization: `Bearer ${this.#token}` };
    const headers = { ...options.headers, ...token };
    const response = await send(path, { ...options, headers });
    if (response.status === 401) throw new TokenNeeded(signIn);
    if (!response.ok) throw await problemOf(response);
    return response;
  }
}

const documentAt = (documentId) => `/v1/documents/${encodeURIComponent(documentId)}`;
const versionAt = (documentId, version) => `${documentAt(documentId)}/versions/${version}`;
