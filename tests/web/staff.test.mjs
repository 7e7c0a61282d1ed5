import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";

import { Problem } from "../staff/api.js";
import { ConnectionLost } from "../staff/event_stream.js";
import { approval, actionsFor } from "../staff/decisions.js";
import { followJob } from "../staff/follow_job.js";
import { formOf, takeIn } from "../staff/intake.js";
import { Lanes } from "../staff/lanes.js";
import { progressOf, reasonKey } from "../staff/progress.js";
import { TEXTS } from "../staff/texts.js";
import { troubleOf } from "../staff/trouble.js";

const WEB = new URL("../staff/", import.meta.url);
const known = (key) => key in TEXTS.ko;

const QUEUED = { state: "queued", stage: "receive", done: 0, total: 0 };
const EMBED = { state: "running", stage: "embed", done: 32, total: 64 };
const DONE = { state: "done", stage: "verify", document_id: "d", version: 1 };

/** Return what `read` answers, one reply after the other; an Error is thrown. */
const replying = (...replies) => async () => {
  const reply = replies.shift();
  if (reply instanceof Error) throw reply;
  return reply;
};

async function follow(...replies) {
  const seen = [];
  const waits = [];
  let error = null;
  try {
    for await (const job of followJob({ read: replying(...replies), wait: async (ms) => waits.push(ms) })) seen.push(job.state);
  } catch (thrown) {
    error = thrown;
  }
  return { seen, waits, error };
}

test("a job is followed to its end, each change is told once, and a cut is waited out", async () => {
  const { seen, waits, error } = await follow(QUEUED, QUEUED, new Problem({ status: 503 }), EMBED, DONE);
  assert.deepEqual([seen, waits.length, error], [["queued", "running", "done"], 4, null]);
  assert.ok(waits[2] <= 500 && waits[2] < waits[1]);
});

test("a refusal is final, and so is the seventh loss in a row", async () => {
  const refused = await follow(new Problem({ status: 404, code: "not_found" }), DONE);
  assert.deepEqual([refused.error.code, refused.seen], ["not_found", []]);
  const lost = await follow(...Array.from({ length: 7 }, () => new ConnectionLost("lost")), DONE);
  assert.deepEqual([lost.seen, lost.waits.length], [[], 6]);
  assert.ok(lost.error instanceof ConnectionLost);
});

test("so many tasks run at once and the others follow in their order, failed ones too", async () => {
  const lanes = new Lanes(2);
  const begun = [];
  const ends = [];
  const task = (name) =>
    lanes.run(() => {
      begun.push(name);
      return new Promise((resolve, reject) => ends.push({ resolve, reject }));
    });
  const all = ["a", "b", "c", "d"].map(task);
  const settled = Promise.allSettled(all);
  await Promise.resolve();
  assert.deepEqual(begun, ["a", "b"]);
  ends[0].reject(new Error("broken"));
  await assert.rejects(all[0]);
  assert.deepEqual(begun, ["a", "b", "c"]);
  ends[1].resolve("b");
  assert.equal(await all[1], "b");
  assert.deepEqual(begun, ["a", "b", "c", "d"]);
  for (const { resolve } of ends) resolve();
  await settled;
});

test("whoever gives up while waiting takes no lane", async () => {
  const lanes = new Lanes(1);
  let end;
  const first = lanes.run(() => new Promise((resolve) => (end = resolve)));
  const controller = new AbortController();
  const second = lanes.run(() => assert.fail("given up"), controller.signal);
  const third = lanes.run(async () => "third");
  controller.abort();
  await assert.rejects(second, { name: "AbortError" });
  end();
  await first;
  assert.equal(await third, "third");
});

test("a file's steps are told in order, from waiting to its end", async () => {
  const told = [];
  const api = {
    upload: async (form, onSent) => {
      onSent(0.5);
      return { job_id: "j", document_id: "d", version: 1, title: form.get("title") };
    },
    job: replying(QUEUED, DONE),
  };
  const lanes = { sending: new Lanes(1), following: new Lanes(1) };
  const file = new File(["text"], "안내.md");
  const job = await takeIn(file, { title: "예금", readers: ["a", "b"] }, { api, ...lanes, onStep: (step) => told.push(step) });
  assert.deepEqual(told.map(({ state }) => state), ["waiting", "sending", "sending", "accepted", "accepted", "running", "done"]);
  assert.equal(job.state, "done");
});

test("a file that was approved before is not said to wait for an approval", async () => {
  const told = [];
  const api = { upload: async () => ({ job_id: "j", document_id: "d", version: 3, state: "active" }) };
  const lanes = { sending: new Lanes(1), following: new Lanes(1) };
  await takeIn(new File(["text"], "안내.md"), {}, { api, ...lanes, onStep: (step) => told.push(step) });
  assert.deepEqual(told.map(({ state }) => state), ["waiting", "sending", "there"]);
  assert.deepEqual(progressOf(told.at(-1)), { key: "file_there", values: { version: 3 }, part: 1 });
});

test("a file that was changed after it was chosen is not taken for a lost connection", async () => {
  const api = { upload: () => Promise.reject(new ConnectionLost("error")) };
  const lanes = { sending: new Lanes(1), following: new Lanes(1) };
  const refusal = async (file) => troubleOf(await takeIn(file, {}, { api, ...lanes, onStep: () => {} }).catch((error) => error)).key;
  const file = new File(["text"], "안내.md");
  assert.equal(await refusal(file), "trouble_network");
  file.slice = () => ({ arrayBuffer: () => Promise.reject(new DOMException("changed", "NotReadableError")) });
  assert.equal(await refusal(file), "trouble_file_gone");
});

test("a proxy's own page is told by its status", () => {
  const said = [413, 502, 504, 422, 500].map((status) => troubleOf(new Problem({ status })).key);
  assert.deepEqual(said, ["too_large", "unavailable", "unavailable", "invalid_request", "internal"].map((name) => `trouble_${name}`));
});

test("a form holds each group by itself, leaves out what is empty, and has the file last", () => {
  const form = formOf(new File(["text"], "안내.md"), { readers: ["a", "b"], product: "", title: null, language: "ko" });
  assert.deepEqual([...form.keys()], ["readers", "readers", "language", "file"]);
  assert.deepEqual(form.getAll("readers"), ["a", "b"]);
});

test("each step has a sentence, and a part where one is known", () => {
  const running = (job) => progressOf({ state: "running", job: { done: 0, total: 0, ...job } });
  const steps = [
    [progressOf({ state: "waiting" }), "file_waiting", 0],
    [progressOf({ state: "sending", part: 0.456 }), "file_sending", 0.456],
    [progressOf({ state: "accepted" }), "file_accepted", null],
    [running({ stage: "parse", done: 0, total: 1 }), "file_parse", null],
    [running({ stage: "embed", done: 32, total: 64 }), "file_embed", 0.5],
    [running({ stage: "another" }), "file_receive", null],
    [progressOf({ state: "done" }), "file_done", 1],
  ];
  for (const [{ key, part }, expected, reached] of steps) {
    assert.deepEqual([key, part, known(key)], [expected, reached, true]);
  }
  assert.deepEqual(steps[1][0].values, { part: 45 });
});

test("every reason and every refusal of the server has its sentence", () => {
  const python = (path) => readFileSync(new URL(`../${path}`, import.meta.url), "utf8");
  const [, reasonsOf] = /^class Reason\b(.*?)^class /ms.exec(python("ingest/parsing/parsed.py"));
  const reasons = [...reasonsOf.matchAll(/^ {4}[A-Z_]+ = "([a-z_]+)"  ?#|^ {4}[A-Z_]+ = "([a-z_]+)"$/gm)].map((m) => m[1] ?? m[2]);
  assert.ok(reasons.includes("encrypted") && reasons.includes("not_indexed"));
  for (const reason of reasons) assert.ok(known(`reason_${reason}`), reason);
  assert.equal(reasonKey("never heard of", known), "reason_other");
  const codes = [...python("ingest/errors.py").matchAll(/ {2,}\d{3} (\w+) /g)].map(([, code]) => code);
  assert.ok(codes.includes("second_person"));
  for (const code of codes) {
    const { key } = troubleOf(new Problem({ code, status: Number(code.endsWith("unavailable")) ? 503 : 400 }));
    assert.ok(known(key), code);
  }
});

const VERSION = { uploaded_by: "Kim", state: "indexed", visible_from: null };
const LEE = { sub: "lee", roles: ["approver"] };
const KIM = { sub: "kim ", roles: ["approver"] };
const PARK = { sub: "park", roles: ["staff"] };

test("the approve button is for a second person with the role, once the text was screened", () => {
  const said = (me, screened = true) => approval(me, VERSION, { screened }).key;
  assert.equal(approval(LEE, VERSION, { screened: true, blocked: true }).key, "approve_blocked");
  const unseen = approval(LEE, VERSION, { screened: true, unseen: 3 });
  assert.deepEqual([unseen.allowed, unseen.key, unseen.values.count], [true, "approve_unseen", 3]);
  assert.deepEqual([said(KIM), said(PARK), said(LEE, false), said(LEE)], ["approve_own", "approve_role", "approve_checking", "approve"]);
  assert.deepEqual([KIM, PARK, LEE].map((me) => approval(me, VERSION, { screened: true }).allowed), [false, false, true]);
});

test("a version offers what its state and the caller allow", () => {
  const of = (state, me, visible = 1) => actionsFor(me, { ...VERSION, state, visible_from: visible }).join();
  assert.equal(of("indexed", PARK, null), "review,title,dates");
  assert.equal(of("active", PARK), "review,title");
  assert.equal(of("active", LEE), "review,title,dates,expire");
  assert.equal(of("active", KIM), "review,title,expire");
  assert.equal(of("expired", LEE), "review,roll_back");
  assert.equal(of("expired", KIM), "review");
  assert.equal(of("withdrawn", LEE), "roll_back");
  assert.equal(of("withdrawn", LEE, null), "");
  assert.equal(of("failed", LEE, null), "");
});

const placeholders = (text) => [...new Set([...text.matchAll(/\{\w+\}/g)].map(([name]) => name))].sort();

test("both languages say the same things and fill in the same values", () => {
  assert.deepEqual(Object.keys(TEXTS.ko).sort(), Object.keys(TEXTS.en).sort());
  for (const [key, text] of Object.entries(TEXTS.ko)) assert.deepEqual(placeholders(text), placeholders(TEXTS.en[key]), key);
  for (const [key, text] of Object.entries(TEXTS.en)) assert.doesNotMatch(text, /[가-힣]/, key);
});

test("every text that the page names exists, and every text is used", () => {
  const sources = readdirSync(WEB).filter((name) => /\.(js|html)$/.test(name) && name !== "texts.js");
  const code = sources.map((name) => readFileSync(new URL(name, WEB), "utf8")).join("\n");
  for (const [, key] of code.matchAll(/data-i18n(?:-label|-alt)?="(\w+)"/g)) assert.ok(known(key), key);
  const wire = new Set(["api.js", "staff_api.js", "intake.js", "trouble.js"]); // they hold names of the server's, too
  const spoken = sources.filter((name) => name.endsWith(".js") && !wire.has(name)).map((name) => readFileSync(new URL(name, WEB), "utf8"));
  for (const [, key] of spoken.join("\n").matchAll(/"([a-z]+(?:_[a-z0-9]+)+)"/g)) assert.ok(known(key), key);
  const built = /^(state|reason|trouble|finding|file|place|left_out|event)_/; // put together from what the server says
  for (const key of Object.keys(TEXTS.ko)) if (!built.test(key)) assert.match(code, new RegExp(`"${key}"`), key);
});
