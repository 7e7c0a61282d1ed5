import assert from "node:assert/strict";
import { test } from "node:test";

import { isCutShort, noticesFor } from "../customers/answer_view.js";
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
  const said = (onLine) => {
    Object.defineProperty(globalThis, "navigator", { value: { onLine }, configurable: true });
    return troubleOf(new ConnectionLost()).said;
  };
  assert.equal(said(true), "error_unreachable");
  assert.equal(said(false), "error_network");
});
