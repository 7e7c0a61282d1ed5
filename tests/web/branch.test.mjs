import assert from "node:assert/strict";
import { test } from "node:test";

import { branchThrough, branchTo, newestBranch, openQuestion, siblingsOf } from "../customers/branch.js";

const message = (id, parent, role = id.startsWith("q") ? "user" : "assistant") => ({ id, parent_id: parent, role });
const TREE = [
  message("q1", null),
  message("a1", "q1"),
  message("q2", "a1"),
  message("a2", "q2"),
  message("a1b", "q1"),
  message("q3", "a1b"),
  message("a3", "q3"),
];
const ids = (messages) => messages.map(({ id }) => id);

test("the newest branch is the way to the newest message", () => {
  assert.deepEqual(ids(newestBranch(TREE)), ["q1", "a1b", "q3", "a3"]);
  assert.deepEqual(newestBranch([]), []);
});

test("a branch through a message goes on to its newest descendant", () => {
  assert.deepEqual(ids(branchThrough(TREE, "a1")), ["q1", "a1", "q2", "a2"]);
  assert.deepEqual(ids(branchThrough(TREE, "a1b")), ["q1", "a1b", "q3", "a3"]);
  assert.deepEqual(ids(branchThrough(TREE, "gone")), ["q1", "a1b", "q3", "a3"]);
});

test("siblings answer the same question, oldest first", () => {
  assert.deepEqual(siblingsOf(TREE, TREE[4]), ["a1", "a1b"]);
  assert.deepEqual(siblingsOf(TREE, TREE[0]), ["q1"]);
});

test("a circle ends", () => {
  const circle = [message("a", "b"), message("b", "a")];
  assert.deepEqual(ids(newestBranch(circle)), ["a", "b"]);
});

test("an open question is one whose answer is not there yet, the first or another one", () => {
  const began = (id, answer) => TREE.map((m) => (m.id === id ? { ...m, answered_by: answer } : m));
  assert.equal(openQuestion(TREE), null);
  assert.equal(openQuestion(began("q2", "a2")), null);
  assert.equal(openQuestion(began("q2", "a9")).id, "q2");
  assert.equal(openQuestion([...began("q2", "a9"), { ...message("q4", "a3"), answered_by: "a8" }]).id, "q4");
});

test("the branch to a message ends with it", () => {
  assert.deepEqual(ids(branchTo(TREE, "q2")), ["q1", "a1", "q2"]);
  assert.deepEqual(branchTo(TREE, "gone"), []);
});
