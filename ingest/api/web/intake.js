// Upload one file and follow its job until it ends. Doesn't touch the page's elements.

import { Problem } from "./api.js";
import { ConnectionLost } from "./event_stream.js";
import { followJob } from "./follow_job.js";

const APPROVED = ["approved", "active"];

/**
 * Upload `file` with `fields`, and call `onStep` with each step as `{state, …}`: waiting, sending (part), accepted,
 * running (job), done (job), failed (job); or, after sending, there (received), if the same file was approved before.
 * Throws the API's error if it refuses the file.
 */
export async function takeIn(file, fields, { api, sending, following, onStep, signal }) {
  onStep({ state: "waiting" });
  const received = await sending.run(async () => {
    onStep({ state: "sending", part: 0 });
    try {
      return await api.upload(formOf(file, fields), (part) => onStep({ state: "sending", part }), signal);
    } catch (error) {
      const isFileGone = error instanceof ConnectionLost && !(await isReadable(file));
      throw isFileGone ? new Problem({ code: "file_gone" }) : error;
    }
  }, signal);
  if (APPROVED.includes(received.state)) {
    onStep({ state: "there", received });
    return received;
  }
  onStep({ state: "accepted", received });
  return watch(received.job_id, { api, following, onStep, signal });
}

/** Return whether the browser can read `file`; it cannot after the file was changed or moved, or if it is a folder. */
const isReadable = (file) => file.slice(0, 1).arrayBuffer().then(() => true, () => false);

/** Follow a job until it ends, when one of the lanes `following` is free. */
export function watch(jobId, { api, following, onStep, signal }) {
  return following.run(async () => {
    let job = null;
    for await (job of followJob({ read: () => api.job(jobId, signal) })) {
      onStep({ state: job.state === "queued" ? "accepted" : "running", job, received: job });
    }
    onStep({ state: job.state === "done" ? "done" : "failed", job, received: job });
    return job;
  }, signal);
}

/** Return the multipart form of a file, without empty fields. */
export function formOf(file, fields) {
  const form = new FormData();
  for (const [name, value] of Object.entries(fields)) {
    for (const one of Array.isArray(value) ? value : [value]) if (one) form.append(name, one);
  }
  form.append("file", file, file.name);
  return form;
}
