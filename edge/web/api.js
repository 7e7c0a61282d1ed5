// Calls of a service's API: problem documents become errors, and nothing is tried again.

import { ConnectionLost } from "./event_stream.js";

/**
 * A refusal; where the server put it into words, `code` is stable and `detail` is its sentence (in English). `dimension`
 * names a limit, `retryAfter` is in seconds or null.
 */
export class Problem extends Error {
  constructor({ code = "", status = 500, detail = "", dimension = "", document_id: documentId = "", version = null }, retryAfter = null) {
    super(detail || code || String(status));
    Object.assign(this, { code, status, detail, dimension, documentId, version, retryAfter });
  }
}

/** A sign-in is needed, or a token; `signIn` is that of the caller when it was asked. */
export class TokenNeeded extends Error {
  constructor(signIn) {
    super();
    Object.assign(this, { signIn });
  }
}

/** Fetch; throws ConnectionLost, also after the deadline of a signal. */
export async function send(path, options) {
  try {
    return await fetch(path, { cache: "no-store", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error; // somebody gave it up
    throw new ConnectionLost(path, { cause: error });
  }
}

/** Return a reply's JSON; throws ConnectionLost where it broke in the middle. */
export async function bodyOf(response) {
  try {
    return await response.json();
  } catch (error) {
    throw new ConnectionLost(response.url, { cause: error });
  }
}

/** Return the refusal that a response is. */
export async function problemOf(response) {
  const wait = Number.parseInt(response.headers.get("retry-after") ?? "", 10);
  return new Problem({ status: response.status, ...parsed(await response.text()) }, Number.isNaN(wait) ? null : wait);
}

/** Return the JSON of a text, empty where it is a proxy's own page. */
export function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return {};
  }
}
