// The text and the progress of a file's row, for each step. Pure.

const STAGES = new Set(["receive", "parse", "embed", "upsert", "verify", "activate"]);

/** Return `{key, values, part}` for a step of `intake.js`; `part` is 0 to 1, or null if it is unknown. */
export function progressOf(step) {
  if (step.state === "sending") return { key: "file_sending", values: { part: Math.floor(step.part * 100) }, part: step.part };
  if (step.state === "running") return stageOf(step.job);
  if (step.state === "there") return { key: "file_there", values: { version: step.received.version }, part: 1 };
  const part = { waiting: 0, accepted: null, done: 1, back: 1, failed: 1 }[step.state];
  return { key: `file_${step.state}`, values: {}, part };
}

function stageOf({ stage, done, total }) {
  if (stage !== "embed") return { key: STAGES.has(stage) ? `file_${stage}` : "file_receive", values: {}, part: null };
  return { key: "file_embed", values: { done, total }, part: total ? done / total : null };
}

/** Return the key of the text for the reason of a failed file or a withdrawn version; `hasText(key)` knows the texts. */
export const reasonKey = (reason, hasText) => (hasText(`reason_${reason}`) ? `reason_${reason}` : "reason_other");
