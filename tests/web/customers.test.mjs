import assert from "node:assert/strict";
import { test } from "node:test";

import { followUps, isCutShort, noticesFor } from "../customers/answer_view.js";
import { ConnectionLost } from "../customers/event_stream.js";
import { TEXTS } from "../customers/texts.js";
import { troubleOf } from "../customers/trouble.js";

const codes = (reason) => noticesFor(["masked", "model_switched", "not_resumable", "degraded"].map((code) => ({ code })), reason).map(({ code }) => code);

test("no customer reads which server answers, and a hand-off is said once", () => {
  assert.deepEqual(codes("stop"), ["masked", "degraded"]);
  assert.deepEqual(codes("handoff"), ["masked"]);
});

test("a reply of the bank is followed by no sentence about how the answer ended", () => {
  for (const reason of ["stop", "refused", "withheld", "handoff"]) assert.ok(!isCutShort(reason) && !(`end_${reason}` in TEXTS.ko), reason);
  for (const reason of ["length", "budget", "cancelled", "error", "missing"]) assert.ok(isCutShort(reason), reason);
});

test("a server that is away is not said to be the customer's connection", () => {
  const keyOf = (onLine) => {
    Object.defineProperty(globalThis, "navigator", { value: { onLine }, configurable: true });
    return troubleOf(new ConnectionLost()).key;
  };
  assert.equal(keyOf(true), "trouble_network");
  assert.equal(keyOf(false), "trouble_network_offline");
});

test("other sections of the cited documents are suggested, each once and three at most", () => {
  const source = (document, section) => ({ document_id: document, version: 1, title: "예금", section: `예금 > ${section}` });
  const found = [source("a", "금리"), source("a", "해지"), source("b", "한도"), source("a", "해지"), source("a", "Fees"), source("a", "세금"), source("a", "가입 > 대상"), source("a", "기타")];
  found.push({ ...source("a", ""), section: "예금" });
  assert.deepEqual(followUps([found[0]], found, "ko").map(({ section }) => section), ["예금 > 해지", "예금 > 세금", "예금 > 가입 > 대상"]);
  assert.deepEqual(followUps([found[0]], found, "en").map(({ section }) => section), ["예금 > Fees"]);
  assert.deepEqual(followUps([], found, "ko"), []);
});
