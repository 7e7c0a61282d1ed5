import assert from "node:assert/strict";
import { test } from "node:test";

import { parseBlocks, parseInline } from "../customers/markdown.js";

const cut = (text) => ({ start, end }) => text.slice(start, end);
const parse = (text) => [parseBlocks(text), cut(text)];

test("paragraphs end at a blank line and keep their line breaks", () => {
  const [blocks, at] = parse("하나\n둘\n\n셋");
  assert.deepEqual(blocks.map(({ type, lines }) => [type, lines.map(at)]), [["paragraph", ["하나", "둘"]], ["paragraph", ["셋"]]]);
});

/** Return blocks as the lines that they hold, nested as they are. */
const outline = (blocks, at) =>
  blocks.map(({ type, lines, items, blocks: inner, header, rows }) => {
    if (type === "table") return { table: [header, ...rows].map((row) => row.map(at)) };
    if (lines) return lines.map(at).join("/");
    return { [type]: inner ? outline(inner, at) : items.map((item) => outline(item, at)) };
  });
const outlined = (text) => outline(parseBlocks(text), cut(text));

test("a quote is a block of its own, with the blocks inside it", () => {
  assert.deepEqual(outlined("안내\n> 하나\n>둘\n>\n> - 셋\n넷"), ["안내", { quote: ["하나/둘", { list: [["셋"]] }] }, "넷"]);
  assert.deepEqual(outlined("> > 안"), [{ quote: [{ quote: ["안"] }] }]);
  assert.deepEqual(outlined("> | a | b |\n> |---|---|\n> | 1 | 2 |"), [{ quote: [{ table: [["a", "b"], ["1", "2"]] }] }]);
});

test("lists, quotes and tables stand inside the item that they are indented under", () => {
  assert.deepEqual(outlined("1. **하나**\n   - 가\n     - 나\n   - 다\n2. 둘"), [{ list: [["**하나**", { list: [["가", { list: [["나"]] }], ["다"]] }], ["둘"]] }]);
  assert.deepEqual(outlined("- 하나\n  | a | b |\n  |---|---|\n  | 1 | 2 |\n\n  > 둘\n- 셋"), [
    { list: [["하나", { table: [["a", "b"], ["1", "2"]] }, { quote: ["둘"] }], ["셋"]] },
  ]);
  assert.deepEqual(outlined("- 하나\n - 둘\n\n셋"), [{ list: [["하나"], ["둘"]] }, "셋"]);
});

test("signs without end are only text at last", () => {
  assert.deepEqual(parseBlocks(">".repeat(20_000)).length, 1);
});

test("lists keep their kind and each item's own number; an indented line belongs to its item", () => {
  const [blocks, at] = parse("- 하나\n- 둘\n  이어서\n\n3. 셋\n5) 넷");
  assert.deepEqual(blocks.map(({ ordered }) => ordered), [false, true]);
  assert.deepEqual(blocks[1].numbers, [3, 5]);
  assert.deepEqual(outline(blocks, at), [{ list: [["하나"], ["둘/이어서"]] }, { list: [["셋"], ["넷"]] }]);
});

test("a table has a header only where a rule follows it, and cells know where they stand", () => {
  const [[table], at] = parse("| 기간 | 금리 |\n|:---|---:|\n| 1년 | 2.8% |\n| 2년 |  |");
  assert.deepEqual(table.header.map(at), ["기간", "금리"]);
  assert.deepEqual(table.rows.map((row) => row.map(at)), [["1년", "2.8%"], ["2년", ""]]);
  const [[bare], there] = parse("| 1년 | 2.8% |");
  assert.equal(bare.header, null);
  assert.deepEqual(bare.rows.map((row) => row.map(there)), [["1년", "2.8%"]]);
});

test("bold needs both its ends; a lone pair of stars and markup stay text", () => {
  const text = "a **b** c ** <b>d</b><br>e";
  const runs = parseInline(text, 0, text.length).map((run) => [run.br ? "br" : cut(text)(run), run.bold ?? false]);
  assert.deepEqual(runs, [["a ", false], ["b", true], [" c ** <b>d</b>", false], ["br", false], ["e", false]]);
});

test("every prefix of an answer can be parsed, and loses none of its words", () => {
  const text = "# 안내\n기간은 **1년**입니다.\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n- x\n- y\n10% 이하\n1. 하나\n   - 안\n\n     둘째\n> 인용\n> > 속";
  for (let end = 0; end <= text.length; end += 1) {
    const blocks = parseBlocks(text.slice(0, end));
    for (const { start, end: stop } of blocks) assert.ok(start <= stop && stop <= end);
    assert.equal(blocks.map((block) => text.slice(block.start, block.end)).join("").replace(/\s/g, ""), text.slice(0, end).replace(/\s/g, ""));
  }
});
