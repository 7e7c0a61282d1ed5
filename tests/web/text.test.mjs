import assert from "node:assert/strict";
import { test } from "node:test";

import { newestBranch } from "../customers/branch.js";
import { completeUpTo, countCodePoints, languageOf, locate, sectionWithin, speakable, utf16Offset } from "../customers/text.js";

test("offsets are counted in code points, as the server counts them", () => {
  const text = "💰금리 👍🏽.";
  assert.equal(countCodePoints(text), 7);
  assert.equal(text.slice(0, utf16Offset(text, 3)), "💰금리");
  assert.equal(text.slice(utf16Offset(text, 4), utf16Offset(text, 6)), "👍🏽");
  assert.equal(utf16Offset(text, 99), text.length);
});

test("a sentence is read out only when it is certainly complete", () => {
  assert.equal(completeUpTo("연 3."), 0);
  assert.equal(completeUpTo("연 3.5%입니다."), 0);
  assert.equal(completeUpTo("연 3.5%입니다. 다음"), "연 3.5%입니다.".length);
  assert.equal(completeUpTo("- 하나\n- 둘"), "- 하나\n".length);
});

test("what is read out has no Markdown signs", () => {
  assert.equal(speakable("- **중도해지**는 됩니다."), "중도해지는 됩니다.");
  assert.equal(speakable("> 연 0.5%\n> - 둘\n>> 셋"), "연 0.5% 둘 셋");
  assert.equal(speakable("| 기간 | 금리 |\n|---|---|\n| 1년 | 2.8% |"), "기간, 금리, 1년, 2.8%");
});

test("a quote is found exactly, across line breaks and Markdown, or not at all", () => {
  const passage = "만기 전에\n**해지**하면 연 0.10%입니다.";
  const found = (quote) => {
    const at = locate(passage, quote);
    return at && passage.slice(at.start, at.end);
  };
  assert.equal(found("연 0.10%입니다."), "연 0.10%입니다.");
  assert.equal(found("만기 전에 해지하면"), "만기 전에\n**해지**하면");
  assert.equal(found("만기 후에"), null);
  assert.equal(found(""), null);
});

test("Hangul is Korean, everything else is English", () => {
  assert.equal(languageOf("한빛 Bank"), "ko");
  assert.equal(languageOf("1599-0000"), "en");
});

test("only the newest branch of a conversation is shown", () => {
  const message = (id, parent) => ({ id, parent_id: parent });
  const messages = [message("q1", null), message("a1", "q1"), message("q2", "a1"), message("q3", "a1"), message("a3", "q3")];
  assert.deepEqual(newestBranch(messages).map(({ id }) => id), ["q1", "a1", "q3", "a3"]);
  assert.deepEqual(newestBranch([]), []);
});

test("a section is named without the title that stands above it anyway", () => {
  assert.equal(sectionWithin("정기예금 안내 > 금리", "정기예금 안내"), "금리");
  assert.equal(sectionWithin("정기예금 안내", "정기예금 안내"), "");
  assert.equal(sectionWithin("금리", "정기예금 안내"), "금리");
});
