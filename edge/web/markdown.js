// The little Markdown that answers and passages use, as blocks and runs that know where they stand in the source, so
// that citation markers and highlights can be placed by offset. Pure: what becomes of it in the page is render.js.

const RULE = /^\s*\|?\s*:?-{2,}:?\s*(\|\s*:?-{2,}:?\s*)*\|?\s*$/;
const ROW = /^\s*\|.*\|\s*$/;
const HEADING = /^\s{0,3}(#{1,6})\s+/;
const BULLET = /^\s*[-*•·]\s+/;
const NUMBER = /^\s*(\d{1,3})[.)]\s+/;
const QUOTE = /^\s{0,3}> ?/;
const INDENT = /^\s{0,2}/;
const NESTED = 2; // spaces before a line that belongs to the item above
const DEEPEST = 8; // quotes and lists inside one another
const STARTS = [HEADING, BULLET, NUMBER, ROW, QUOTE];

/**
 * Return the blocks of `text`: paragraph, heading, list, table or quote; every position is a UTF-16 offset into `text`.
 * A quote holds blocks, and so does each item of a list.
 */
export const parseBlocks = (text) => blocksOf(linesOf(text));

function blocksOf(lines, depth = 0) {
  const blocks = [];
  for (let n = 0; n < lines.length; ) {
    if (isBlank(lines[n])) {
      n += 1;
      continue;
    }
    const [block, next] = blockAt(lines, n, depth);
    blocks.push({ ...block, start: lines[n].start, end: lines[next - 1].end });
    n = next;
  }
  return blocks;
}

/** Return the runs of plain text between `start` and `end`, as `{start, end, bold}` or `{br: true, start, end}`. */
export function parseInline(text, start, end) {
  const runs = [];
  const sign = /\*\*|<br\s*\/?>/gi;
  const piece = text.slice(start, end);
  let bold = false;
  let at = 0;
  const flush = (upTo) => {
    if (upTo > at) runs.push({ start: start + at, end: start + upTo, bold });
  };
  for (const match of piece.matchAll(sign)) {
    const isBold = match[0] === "**";
    // Two stars that nothing closes are two stars.
    if (isBold && !bold && !piece.includes("**", match.index + 2)) continue;
    flush(match.index);
    at = match.index + match[0].length;
    if (isBold) bold = !bold;
    else runs.push({ br: true, start: start + match.index, end: start + at });
  }
  flush(piece.length);
  return runs;
}

function linesOf(text) {
  const lines = [];
  let start = 0;
  for (const line of text.split("\n")) {
    lines.push({ text: line, start, end: start + line.length });
    start += line.length + 1;
  }
  return lines;
}

const isBlank = (line) => line.text.trim() === "";

function blockAt(lines, n, depth) {
  if (ROW.test(lines[n].text) || startsTable(lines, n)) return tableAt(lines, n);
  if (HEADING.test(lines[n].text)) return [{ type: "heading", lines: [trimmed(without(lines[n], HEADING))] }, n + 1];
  if (depth === DEEPEST) return paragraphAt(lines, n);
  if (BULLET.test(lines[n].text) || NUMBER.test(lines[n].text)) return listAt(lines, n, depth + 1);
  if (QUOTE.test(lines[n].text)) return quoteAt(lines, n, depth + 1);
  return paragraphAt(lines, n);
}

const startsTable = (lines, n) =>
  lines[n].text.includes("|") && n + 1 < lines.length && lines[n + 1].text.includes("|") && RULE.test(lines[n + 1].text);

function paragraphAt(lines, first) {
  let n = first + 1;
  const goesOn = (at) => !isBlank(lines[at]) && !STARTS.some((sign) => sign.test(lines[at].text)) && !startsTable(lines, at);
  while (n < lines.length && goesOn(n)) n += 1;
  return [{ type: "paragraph", lines: lines.slice(first, n).map(trimmed) }, n];
}

function quoteAt(lines, first, depth) {
  let n = first;
  while (n < lines.length && QUOTE.test(lines[n].text)) n += 1;
  return [{ type: "quote", blocks: blocksOf(lines.slice(first, n).map((line) => without(line, QUOTE)), depth) }, n];
}

function listAt(lines, first, depth) {
  const ordered = NUMBER.test(lines[first].text) && !BULLET.test(lines[first].text);
  const sign = ordered ? NUMBER : BULLET;
  const deeper = indentOf(lines[first]) + NESTED;
  const items = [];
  const numbers = []; // each item's own: a list may leave some out
  let n = first;
  for (; n < lines.length; n += 1) {
    // Behind a blank line only indented lines belong to the item.
    const isInside = items.length > 0 && indentOf(lines[isBlank(lines[n]) ? n + 1 : n]) >= deeper;
    if (isInside) items.at(-1).push(without(lines[n], INDENT));
    else if (sign.test(lines[n].text)) {
      items.push([without(lines[n], sign)]);
      numbers.push(Number(sign.exec(lines[n].text)[1]));
    } else break;
  }
  return [{ type: "list", ordered, numbers, items: items.map((item) => blocksOf(item, depth)) }, n];
}

function tableAt(lines, first) {
  const hasHeader = startsTable(lines, first);
  let n = first + (hasHeader ? 2 : 1);
  while (n < lines.length && lines[n].text.includes("|") && !isBlank(lines[n])) n += 1;
  const header = hasHeader ? cellsOf(lines[first]) : null;
  const rows = lines.slice(hasHeader ? first + 2 : first, n).filter((line) => !RULE.test(line.text));
  return [{ type: "table", header, rows: rows.map(cellsOf) }, n];
}

function cellsOf(line) {
  const cells = [];
  let start = line.text.search(/\S/);
  if (line.text[start] === "|") start += 1;
  for (let at = start; at <= line.text.length; at += 1) {
    const closes = line.text[at] === "|" && line.text[at - 1] !== "\\";
    if (!closes && at < line.text.length) continue;
    if (at < line.text.length || line.text.slice(start).trim()) {
      cells.push(trimmed({ text: line.text.slice(start, at), start: line.start + start, end: line.start + at }));
    }
    start = at + 1;
  }
  return cells;
}

/** Return how far a line is indented; -1 where there is no line, or a blank one. */
const indentOf = (line) => line?.text.search(/\S/) ?? -1;

function without(line, sign) {
  const skip = sign.exec(line.text)[0].length;
  return { text: line.text.slice(skip), start: line.start + skip, end: line.end };
}

function trimmed({ text, start, end }) {
  const lead = text.length - text.trimStart().length;
  const tail = text.length - text.trimEnd().length;
  return lead === text.length ? { start, end: start } : { start: start + lead, end: end - tail };
}
