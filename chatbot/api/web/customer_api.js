// A client of the chat API: signs in, and throws the problem documents of replies. It retries only an expired demo login.

import { TokenNeeded, bodyOf, problemOf, send } from "./api.js";
import { SILENCE_MS } from "./event_stream.js";

export class Api {
  #token = null;
  #name;
  #demo;

  /** `name` is the customer's name at the demo bank; null if customers sign in at an identity provider. */
  constructor(name) {
    this.#name = name;
    this.#demo = name !== null;
  }

  /**
   * Return the `name` of the customer who has signed in at the provider, and `person`, which identifies the customer (null
   * if unknown). Without a provider, sign in to the demo bank, whose customers have no names.
   */
  async signIn() {
    if (this.#name === null) {
      const { name, person = null } = await this.#json("/oidc/session");
      if (name === null) throw new TokenNeeded();
      return { name, person };
    }
    const headers = { "content-type": "application/json" };
    const response = await sendWithDeadline("/demo/login", { method: "POST", headers, body: JSON.stringify({ name: this.#name }) });
    if (response.status === 404 || response.status === 405) {
      this.#demo = false;
      throw new TokenNeeded();
    }
    if (!response.ok) throw await problemOf(response);
    this.#token = (await response.json()).token;
    return { name: null, person: this.#name };
  }

  /** Whether this is a customer of the demo bank, who may choose between quoted and written answers. */
  get demo() {
    return this.#demo;
  }

  /** Use a token that the customer entered; it is stored in memory only. */
  useToken(token) {
    this.#token = token;
  }

  ask(question, key, signal) {
    const headers = { "content-type": "application/json", accept: "text/event-stream", "idempotency-key": key };
    return this.#request("/v1/chat", { method: "POST", headers, body: JSON.stringify(question), signal });
  }

  regenerate(answerId, key, signal) {
    const headers = { accept: "text/event-stream", "idempotency-key": key };
    return this.#request(`/v1/answers/${answerId}/regenerate`, { method: "POST", headers, signal });
  }

  async rate(answerId, feedback) {
    const headers = { "content-type": "application/json" };
    await this.#request(`/v1/answers/${answerId}/feedback`, { method: "POST", headers, body: JSON.stringify(feedback) });
  }

  resume(answerId, lastEventId, signal) {
    const headers = { accept: "text/event-stream", "last-event-id": lastEventId };
    return this.#request(`/v1/answers/${answerId}/events`, { headers, signal });
  }

  cancel(answerId) {
    return this.#request(`/v1/answers/${answerId}/cancel`, { method: "POST" });
  }

  async source(answerId, n) {
    return this.#json(`/v1/answers/${answerId}/sources/${n}`);
  }

  async conversations(cursor) {
    const query = cursor ? `?cursor=${encodeURIComponent(cursor)}` : "";
    return this.#json(`/v1/conversations${query}`);
  }

  /** Return a conversation with all its messages; the pages are read from the newest to the oldest. */
  async conversation(id) {
    const path = `/v1/conversations/${encodeURIComponent(id)}`;
    const newest = await this.#json(path);
    const messages = newest.messages;
    const ids = new Set(messages.map((message) => message.id));
    for (let cursor = newest.next_cursor; cursor; ) {
      const page = await this.#json(`${path}?cursor=${encodeURIComponent(cursor)}`);
      const earlier = page.messages.filter((message) => !ids.has(message.id)); // pages may overlap
      earlier.forEach((message) => ids.add(message.id));
      messages.unshift(...earlier);
      cursor = page.next_cursor;
    }
    return { ...newest, messages };
  }

  async deleteConversation(id) {
    await this.#request(`/v1/conversations/${encodeURIComponent(id)}`, { method: "DELETE" });
  }

  async #json(path) {
    return bodyOf(await this.#request(path, { signal: AbortSignal.timeout(SILENCE_MS) }));
  }

  async #request(path, options = {}) {
    let response = await this.#authorized(path, options);
    if (response.status === 401 && this.#demo) {
      await this.signIn(); // a token of the demo expires after some hours
      response = await this.#authorized(path, options);
    }
    if (response.status === 401) throw new TokenNeeded();
    if (!response.ok) throw await problemOf(response);
    return response;
  }

  #authorized(path, options) {
    const authorization = this.#token === null ? {} : { authorization: `Bearer ${this.#token}` };
    return sendWithDeadline(path, { ...options, headers: { ...options.headers, ...authorization } });
  }
}

/** Fetch; abort if the reply does not begin within SILENCE_MS (its body may take longer). */
async function sendWithDeadline(path, { signal, ...options }) {
  const request = new AbortController();
  const timer = setTimeout(() => request.abort(new DOMException(path, "TimeoutError")), SILENCE_MS);
  if (signal?.aborted) request.abort(signal.reason);
  signal?.addEventListener("abort", () => request.abort(signal.reason));
  try {
    return await send(path, { ...options, signal: request.signal });
  } finally {
    clearTimeout(timer);
  }
}
