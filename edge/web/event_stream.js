// A connection's server-sent events, as they come: a silent or broken one is lost, and its reader may come back.

import { SseParser } from "./sse.js";

// The server sends at least a comment every 15 s, so twice that without a byte means that nobody is there.
export const SILENCE_MS = 30_000;

/** The network did not carry the request or its answer. */
export class ConnectionLost extends Error {}

/** Yield `{event, data, id}` of a response's body; throws ConnectionLost, also after `silence` ms without a byte. */
export async function* eventsOf(body, silence) {
  const parser = new SseParser();
  const decoder = new TextDecoder();
  const reader = body.getReader();
  try {
    for (;;) {
      const { done, value } = await readWithin(reader, silence);
      if (done) return;
      yield* parser.feed(decoder.decode(value, { stream: true }));
    }
  } finally {
    reader.cancel().catch(() => {}); // already broken: nothing is left to close
  }
}

async function readWithin(reader, silence) {
  let timer;
  const silent = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new ConnectionLost("silence")), silence);
  });
  try {
    return await Promise.race([reader.read(), silent]);
  } catch (error) {
    if (error.name === "AbortError" || error instanceof ConnectionLost) throw error;
    throw new ConnectionLost("the connection broke", { cause: error });
  } finally {
    clearTimeout(timer);
  }
}
