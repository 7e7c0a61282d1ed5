// One job's steps as a stream that survives a lost connection: it goes on behind the last step that was seen.

import { ConnectionLost, Problem } from "./api.js";
import { SseParser } from "./sse.js";

const TRIES = 6;
// The server sends at least a comment every 15 s, so twice that without a byte means that nobody is there.
const SILENCE_MS = 30_000;

/**
 * Yield what each event says of the job, the last one being its end.
 * `open(lastEventId)` asks for the stream; throws Problem when refused, ConnectionLost after six tries in a row.
 */
export async function* followJob({ open, wait = backOff, silence = SILENCE_MS }) {
  let lastId = "";
  let lost = 0;
  for (;;) {
    try {
      const response = await open(lastId);
      if (response.status === 204) return; // its end was seen already
      for await (const { event, data, id } of eventsOf(response.body, silence)) {
        lost = 0;
        lastId = id;
        yield JSON.parse(data);
        if (event === "done" || event === "error") return;
      }
      throw new ConnectionLost("the stream ended in the middle");
    } catch (error) {
      const mayRecover = error instanceof ConnectionLost || (error instanceof Problem && error.status >= 500);
      if (!mayRecover || lost >= TRIES) throw error;
      lost += 1;
      await wait(lost);
    }
  }
}

async function* eventsOf(body, silence) {
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

/** Wait 0.5, 1, 2, 4, 8, 8 s, a little less for some so that not everybody comes back at once. */
function backOff(attempt) {
  const milliseconds = Math.min(500 * 2 ** (attempt - 1), 8000) * (0.8 + Math.random() * 0.2);
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}
