import assert from "node:assert/strict";
import { test } from "node:test";

import { SseParser } from "../customers/sse.js";

const WIRE = ': ping\r\n\r\nid: a.1\r\nevent: accepted\r\ndata: {"answer_id":"a"}\r\n\r\nid: a.2\nevent: token\ndata: {"text":"한\ndata: 빛"}\n\n';
const EVENTS = [
  { event: "accepted", data: '{"answer_id":"a"}', id: "a.1" },
  { event: "token", data: '{"text":"한\n빛"}', id: "a.2" },
];

test("events are the same however the wire cuts them", () => {
  for (let size = 1; size <= WIRE.length; size += 1) {
    const parser = new SseParser();
    const events = [];
    for (let at = 0; at < WIRE.length; at += size) events.push(...parser.feed(WIRE.slice(at, at + size)));
    assert.deepEqual(events, EVENTS, `in pieces of ${size}`);
  }
});

test("an event whose blank line has not come yet is kept back", () => {
  const parser = new SseParser();
  assert.deepEqual(parser.feed("data: half\n"), []);
  assert.deepEqual(parser.feed("\n"), [{ event: "message", data: "half", id: "" }]);
});

test("a byte order mark, a bare CR, a field without a colon and one without a space are read as the standard says", () => {
  const parser = new SseParser();
  assert.deepEqual(parser.feed("\uFEFFdata\rdata:x\r\rretry: 5\r\n\r\n"), [{ event: "message", data: "\nx", id: "" }]);
});

test("the id stays until another one comes, and one with NUL is none", () => {
  const parser = new SseParser();
  const ids = parser.feed("id: a.1\ndata: 1\n\ndata: 2\n\nid: \0\ndata: 3\n\n").map(({ id }) => id);
  assert.deepEqual(ids, ["a.1", "a.1", "a.1"]);
});
