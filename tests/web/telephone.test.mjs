import assert from "node:assert/strict";
import { test } from "node:test";

import { BANK } from "../customers/bank.js";
import { telephonesIn } from "../customers/telephone.js";

const numbers = (text) => telephonesIn(text).map(({ start, end }) => text.slice(start, end));

test("telephone numbers are found, whatever stands beside them", () => {
  const text = `고객센터 ${BANK.telephone}(02-123-4567), 1588-0000으로. 해외 +82-2-123-4567, 수신자 부담 080-123-4567`;
  assert.deepEqual(numbers(text), [BANK.telephone, "02-123-4567", "1588-0000", "+82-2-123-4567", "080-123-4567"]);
});

test("accounts, dates, amounts and cards are no telephone numbers", () => {
  assert.deepEqual(numbers("110-123-456789, 2026-12-01, 1,588-0000, 1234-1588-0000-1234, 100-02-123-4567, 119만원"), []);
});

test("the short numbers of the helplines are found in the reply that names them", () => {
  for (const crisis of Object.values(BANK.helplines.crisis)) {
    assert.deepEqual(numbers(`${crisis}, ${BANK.helplines.emergency}`), ["109", "1588-9191", "119"]);
  }
});
