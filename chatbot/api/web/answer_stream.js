// One answer as a stream of events that survives a lost connection: it goes on behind the last event that was seen.

import { Problem } from "./api.js";
import { ConnectionLost, SILENCE_MS, eventsOf } from "./event_stream.js";

const TRIES = 5;

/**
 * Yield `{type, ...data}` for every event, and `{type: "reconnecting", attempt}` while the connection is lost.
 * Ends after `done` or `error`; throws Problem when refused, ConnectionLost after five tries in a row.
 */
export async function* followAnswer({ ask, resume, wait = reconnectDelay, silence = SILENCE_MS }) {
  let answerId = null;
  let lastId = "";
  let lost = 0;
  for (;;) {
    try {
      const response = answerId ? await resume(answerId, lastId) : await ask();
      if (response.status === 204) return;
      for await (const { event, data, id } of eventsOf(response.body, silence)) {
        // An error without a number of its own is this connection's: the answer may go on elsewhere.
        if (event === "error" && id === lastId) throw new ConnectionLost("the answer cannot be read further here");
        if (numberOf(id) <= numberOf(lastId)) continue;
        lastId = id;
        lost = 0;
        const payload = JSON.parse(data);
        answerId = payload.answer_id ?? answerId;
        yield Array.isArray(payload) ? { type: event, items: payload } : { type: event, ...payload };
        if (event === "done" || event === "error") return;
      }
      throw new ConnectionLost("the stream ended in the middle");
    } catch (error) {
      if (!mayRecover(error, answerId) || lost >= TRIES) throw error;
      lost += 1;
      yield { type: "reconnecting", attempt: lost };
      await wait(lost);
    }
  }
}

const numberOf = (id) => Number(id.slice(id.lastIndexOf(".") + 1)) || 0;

// Refusing a question is final; refusing to go on with a running answer (a proxy, a restarting server) is not.
const mayRecover = (error, answerId) =>
  error instanceof ConnectionLost || (answerId !== null && error instanceof Problem && error.status >= 500);

/** Wait 0.5, 1, 2, 4, 8 s, a little less for some so that not everybody comes back at once, or until the network is back. */
function reconnectDelay(attempt) {
  const milliseconds = 500 * 2 ** (attempt - 1) * (0.8 + Math.random() * 0.2);
  return new Promise((resolve) => {
    const go = () => {
      clearTimeout(timer);
      removeEventListener("online", go);
      resolve();
    };
    const timer = setTimeout(go, milliseconds);
    addEventListener("online", go);
  });
}
