import assert from "node:assert/strict";
import { test } from "node:test";

import { detailOf } from "../staff/details.js";
import { t } from "../staff/i18n.js";

test("an explanation of the server's is said in Korean, and any other text as it is", () => {
  const said = (sentence) => t("detail", { detail: detailOf(sentence) }); // Korean is the language of a page that chose none
  assert.equal(said("only an indexed draft can be approved; this version is failed"), "초안만 승인할 수 있습니다. 이 버전의 상태: 실패");
  assert.equal(said("more than 3,000 pages"), "3,000쪽을 넘습니다");
  assert.equal(said("금리가 바뀜"), "금리가 바뀜");
  assert.equal(said(null), "");
});
