// One job's steps as a stream that survives a lost connection: it goes on behind the last step that was seen.

import { Problem } from "./api.js";
import { ConnectionLost, SILENCE_MS, eventsOf } from "./event_stream.js";

const TRIES = 6;

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

/** Wait 0.5, 1, 2, 4, 8, 8 s, a little less for some so that not everybody comes back at once. */
function backOff(attempt) {
  const milliseconds = Math.min(500 * 2 ** (attempt - 1), 8000) * (0.8 + Math.random() * 0.2);
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}
