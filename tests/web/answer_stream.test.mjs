import assert from "node:assert/strict";
import { test } from "node:test";

import { followAnswer } from "../customers/answer_stream.js";
import { Problem } from "../customers/api.js";
import { ConnectionLost } from "../customers/event_stream.js";

const ACCEPTED = 'id: a.1\nevent: accepted\ndata: {"answer_id":"a"}\n\n';
const SOURCES = 'id: a.2\nevent: sources\ndata: [{"n":1}]\n\n';
const TOKEN = 'id: a.3\nevent: token\ndata: {"text":"네"}\n\n';
const DONE = 'id: a.4\nevent: done\ndata: {"finish_reason":"stop"}\n\n';

const streamed = (...chunks) => new Response(ReadableStream.from(chunks.map((chunk) => new TextEncoder().encode(chunk))));
const refused = (status) => () => Promise.reject(new Problem({ status, code: "unavailable" }));

async function follow(ask, ...resumptions) {
  const resumedFrom = [];
  const waits = [];
  const resume = async (answerId, lastId) => {
    resumedFrom.push(`${answerId} ${lastId}`);
    return (resumptions.shift() ?? refused(503))();
  };
  const events = [];
  let error = null;
  try {
    for await (const event of followAnswer({ ask, resume, wait: async (attempt) => waits.push(attempt) })) events.push(event);
  } catch (thrown) {
    error = thrown;
  }
  return { types: events.map(({ type }) => type), events, resumedFrom, waits, error };
}

test("an answer is followed to its end, and sources keep their list", async () => {
  const { types, events } = await follow(async () => streamed(ACCEPTED + SOURCES, TOKEN, DONE));
  assert.deepEqual(types, ["accepted", "sources", "token", "done"]);
  assert.deepEqual(events[1].items, [{ n: 1 }]);
});

test("a cut stream goes on behind the last event that was seen, and what comes twice is shown once", async () => {
  const { types, resumedFrom } = await follow(async () => streamed(ACCEPTED, SOURCES), async () => streamed(SOURCES, TOKEN, DONE));
  assert.deepEqual(types, ["accepted", "sources", "reconnecting", "token", "done"]);
  assert.deepEqual(resumedFrom, ["a a.2"]);
});

test("an error without a number is the connection's: the answer is read on", async () => {
  const broken = 'event: error\ndata: {"code":"store_unavailable","status":503}\n\n';
  const { types, resumedFrom } = await follow(async () => streamed(ACCEPTED, SOURCES, broken), async () => streamed(TOKEN, DONE));
  assert.deepEqual(types, ["accepted", "sources", "reconnecting", "token", "done"]);
  assert.deepEqual(resumedFrom, ["a a.2"]);
});

test("five tries without an event give up; any event starts the count again", async () => {
  const cut = async () => streamed();
  const lost = await follow(async () => streamed(ACCEPTED), cut, cut, async () => streamed(TOKEN), cut, cut, cut, cut, cut);
  assert.deepEqual(lost.waits, [1, 2, 3, 1, 2, 3, 4, 5]);
  assert.ok(lost.error instanceof ConnectionLost);
});

test("a question that never reached the server is asked again with the same key", async () => {
  let calls = 0;
  const { types } = await follow(async () => {
    calls += 1;
    if (calls === 1) throw new ConnectionLost();
    return streamed(ACCEPTED, TOKEN, DONE);
  });
  assert.deepEqual(types, ["reconnecting", "accepted", "token", "done"]);
});

test("a refused question is not asked again; a running answer outlives a server that restarts, but not a lost log", async () => {
  const first = await follow(refused(503));
  assert.equal(first.error.status, 503);
  assert.deepEqual(first.waits, []);
  const restarted = await follow(async () => streamed(ACCEPTED), refused(503), async () => streamed(TOKEN, DONE));
  assert.equal(restarted.types.at(-1), "done");
  const gone = await follow(async () => streamed(ACCEPTED), refused(409));
  assert.equal(gone.error.status, 409);
});

test("silence is a lost connection", async () => {
  const silent = () => new Response(new ReadableStream({}));
  const events = [];
  const following = followAnswer({
    ask: async () => (events.length ? streamed(ACCEPTED, DONE) : silent()),
    resume: null,
    wait: async () => {},
    silence: 5,
  });
  for await (const { type } of following) events.push(type);
  assert.deepEqual(events, ["reconnecting", "accepted", "done"]);
});
