// The events of one answer: a lost connection is opened again, after the last received event.

import { Problem } from "./api.js";
import { ConnectionLost, SILENCE_MS, eventsOf } from "./event_stream.js";

const MOST_ATTEMPTS = 5;

/**
 * Yield `{type, ...data}` for each event, and `{type: "reconnecting", attempt}` before each attempt to reconnect.
 * End after `done` or `error`; throw Problem when the server refuses, ConnectionLost after five failed attempts in a row.
 */
export async function* followAnswer({ ask, resume, wait = reconnectDelay, silence = SILENCE_MS }) {
  let answerId = null;
  let lastId = "";
  let attempts = 0;
  for (;;) {
    try {
      const response = answerId ? await resume(answerId, lastId) : await ask();
      if (response.status === 204) return;
      for await (const { event, data, id } of eventsOf(response.body, silence)) {
        // An error without its own number concerns this connection: another one may read the rest of the answer.
        if (event === "error" && id === lastId) throw new ConnectionLost("the answer cannot be read further here");
        if (numberOf(id) <= numberOf(lastId)) continue;
        lastId = id;
        attempts = 0;
        const payload = JSON.parse(data);
        answerId = payload.answer_id ?? answerId;
        yield Array.isArray(payload) ? { type: event, items: payload } : { type: event, ...payload };
        if (event === "done" || event === "error") return;
      }
      throw new ConnectionLost("the stream ended in the middle");
    } catch (error) {
      if (!mayRecover(error, answerId) || attempts >= MOST_ATTEMPTS) throw error;
      attempts += 1;
      yield { type: "reconnecting", attempt: attempts };
      await wait(attempts);
    }
  }
}

/** Return an event's number, the last part of its id; 0 for an empty id. */
const numberOf = (id) => Number(id.slice(id.lastIndexOf(".") + 1)) || 0;

// A refused question is final. A server error while resuming a running answer (a proxy, a restart) is not.
const mayRecover = (error, answerId) =>
  error instanceof ConnectionLost || (answerId !== null && error instanceof Problem && error.status >= 500);

/** Wait 0.5, 1, 2, 4, 8 s, minus up to 20 % so that clients do not all reconnect at once, or until the browser is online. */
function reconnectDelay(attempt) {
  const milliseconds = 500 * 2 ** (attempt - 1) * (0.8 + Math.random() * 0.2);
  return new Promise((resolve) => {
    const finish = () => {
      clearTimeout(timer);
      removeEventListener("online", finish);
      resolve();
    };
    const timer = setTimeout(finish, milliseconds);
    addEventListener("online", finish);
  });
}
