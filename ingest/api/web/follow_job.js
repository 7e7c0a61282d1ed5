// Follow a job: read its state repeatedly until it ends, and retry when a connection is lost.

import { Problem } from "./api.js";
import { ConnectionLost } from "./event_stream.js";

const POLL_MS = 700;
const TRIES = 6;
const ENDS = ["done", "failed", "dead"];

/**
 * Yield the job each time that it has changed, until it has ended. `read()` returns the job.
 * Throws Problem if the server refuses, or the error of `read` after six retries in a row.
 */
export async function* followJob({ read, wait = pause }) {
  let last = "";
  let lost = 0;
  for (;;) {
    let job = null;
    try {
      job = await read();
      lost = 0;
    } catch (error) {
      const mayRecover = error instanceof ConnectionLost || (error instanceof Problem && error.status >= 500);
      if (!mayRecover || lost >= TRIES) throw error;
      lost += 1;
    }
    const step = JSON.stringify(job);
    if (job !== null && step !== last) {
      last = step;
      yield job;
    }
    if (ENDS.includes(job?.state)) return;
    await wait(lost === 0 ? POLL_MS : backOff(lost));
  }
}

/** Return 0.5, 1, 2, 4, 8, 8 s in milliseconds, less up to a fifth at random, so that clients don't retry at once. */
const backOff = (attempt) => Math.min(500 * 2 ** (attempt - 1), 8000) * (0.8 + Math.random() * 0.2);

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
