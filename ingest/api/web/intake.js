// One file's way in: it waits, is sent, and then its job is followed to its end. No element of the page is touched here.

import { Problem } from "./api.js";
import { ConnectionLost } from "./event_stream.js";
import { followJob } from "./follow_job.js";

const DECIDED = ["approved", "active"];

/**
 * Take `file` in with `fields` and tell each step as `{state, …}`: waiting, sending (part), accepted, running (job),
 * done (job), failed (job); or, after sending, there (received): the same file was decided about before.
 * Throws what the API throws when it refuses the file.
 */
export async function takeIn(file, fields, { api, sending, following, tell, signal }) {
  tell({ state: "waiting" });
  const received = await sending.run(async () => {
    tell({ state: "sending", part: 0 });
    try {
      return await api.upload(formOf(file, fields), (part) => tell({ state: "sending", part }), signal);
    } catch (error) {
      throw error instanceof ConnectionLost && !(await isReadable(file)) ? new Problem({ code: "file_gone" }) : error;
    }
  }, signal);
  if (DECIDED.includes(received.state)) {
    tell({ state: "there", received });
    return received;
  }
  tell({ state: "accepted", received });
  return watch(received.job_id, { api, following, tell, signal });
}

/** Return whether the browser still reads `file`: not once it was changed or moved, and never where it is a folder. */
const isReadable = (file) => file.slice(0, 1).arrayBuffer().then(() => true, () => false);

/** Follow a job to its end; a browser has six connections to a server, so only some are followed at once. */
export function watch(jobId, { api, following, tell, signal }) {
  return following.run(async () => {
    let job = null;
    for await (job of followJob({ read: () => api.job(jobId, signal) })) {
      tell({ state: job.state === "queued" ? "accepted" : "running", job, received: job });
    }
    tell({ state: job.state === "done" ? "done" : "failed", job, received: job });
    return job;
  }, signal);
}

/** Return the multipart form of a file; what nobody filled in is left out. */
export function formOf(file, fields) {
  const form = new FormData();
  for (const [name, value] of Object.entries(fields)) {
    for (const one of Array.isArray(value) ? value : [value]) if (one) form.append(name, one);
  }
  form.append("file", file, file.name);
  return form;
}
