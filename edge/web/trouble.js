// What went wrong, as the name of a plain sentence.

import { Problem, TokenNeeded } from "./api.js";
import { ConnectionLost } from "./event_stream.js";
import { has } from "./i18n.js";

const OF_STATUS = { 400: "invalid_request", 413: "too_large", 422: "invalid_request", 429: "rate_limited", 502: "unavailable", 503: "unavailable", 504: "unavailable" };

/** Return `{code, key, values}` of the sentence for anything that was thrown, or sent as an `error` event. */
export function troubleOf(error) {
  const { code, status, detail, dimension, documentId, version } = refusalOf(error);
  const name = [code, OF_STATUS[status]].find((candidate) => has(`trouble_${candidate}`)) ?? "internal";
  const narrow = [`trouble_${name}_${dimension}`].find(has);
  return { code: name, key: narrow ?? `trouble_${name}`, values: { detail, document: documentId, version } };
}

function refusalOf(error) {
  if (error instanceof Problem || error?.type === "error") return error;
  if (error instanceof ConnectionLost) return { code: "network", dimension: globalThis.navigator?.onLine === false ? "offline" : "" };
  if (error instanceof TokenNeeded) return { code: "unauthenticated" };
  console.error(error);
  return {};
}
