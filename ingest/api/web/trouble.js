// What went wrong, in a plain sentence.

import { Problem, TokenNeeded } from "./api.js";
import { ConnectionLost } from "./event_stream.js";
import { el } from "./dom.js";
import { has, say } from "./i18n.js";

/** Return `{key, values}` of the sentence for anything that was thrown. */
export function troubleOf(error) {
  if (error instanceof ConnectionLost) return { key: "trouble_network", values: {} };
  if (error instanceof TokenNeeded) return { key: "trouble_unauthenticated", values: {} };
  if (!(error instanceof Problem)) {
    console.error(error);
    return { key: "trouble_internal", values: {} };
  }
  const values = { detail: error.detail, document: error.documentId, version: error.version };
  return { key: `trouble_${known(error.code, error.status)}`, values };
}

function known(code, status) {
  if (has(`trouble_${code}`)) return code;
  if (status === 413) return "too_large";
  if (status >= 502 && status <= 504) return "unavailable";
  return status === 400 || status === 422 ? "invalid_request" : "internal";
}

/** Return a paragraph that says what went wrong as soon as it is on the page. */
export function troubleLine(error) {
  const { key, values } = troubleOf(error);
  return say(el("p", { class: "problem", role: "alert" }), key, values);
}
