// The little Markdown that answers and passages use, as blocks and runs that know where they stand in the source, so
// that citation markers and highlights can be placed by offset. Pure: what becomes of it in the page is render.js.

const RULE = /^\s*\|?\s*:?-{2,}:?\s*(\|\s*:?-{2,}:?\s*)*\|?\s*$/;
const ROW = /^\s*\|.*\|\s*$/;
const HEADING = /^\s{0,3}(#{1,6})\s+/;
const BULLET = /^\s*[-*•·]\s+/;
const NUMBER = /^\s*(\d{1,3})[.)]\s+/;

/** Return the blocks of `text`: paragraph, heading, list or table; every position is a UTF-16 offset into `text`. */
export function parseBlocks(text) {
  const lines = linesOf(text);
  const blocks = [];
  for (let n = 0; n < lines.length; ) {
    if (isBlank(lines[n])) {
      n += 1;
      continue;
    }
    const [block, next] = blockAt(lines, n);
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

function blockAt(lines, n) {
  if (ROW.test(lines[n].text) || startsTable(lines, n)) return tableAt(lines, n);
  if (HEADING.test(lines[n].text)) return [{ type: "heading", lines: [afterSign(lines[n], HEADING)] }, n + 1];
  if (BULLET.test(lines[n].text) || NUMBER.test(lines[n].text)) return listAt(lines, n);
  return paragraphAt(lines, n);
}

const startsTable = (lines, n) =>
  lines[n].text.includes("|") && n + 1 < lines.length && lines[n + 1].text.includes("|") && RULE.test(lines[n + 1].text);

function paragraphAt(lines, first) {
  let n = first + 1;
  const goesOn = (at) =>
    !isBlank(lines[at]) && ![HEADING, BULLET, NUMBER, ROW].some((sign) => sign.test(lines[at].text)) && !startsTable(lines, at);
  while (n < lines.length && goesOn(n)) n += 1;
  return [{ type: "paragraph", lines: lines.slice(first, n).map(trimmed) }, n];
}

function listAt(lines, first) {
  const ordered = NUMBER.test(lines[first].text) && !BULLET.test(lines[first].text);
  const sign = ordered ? NUMBER : BULLET;
  const items = [];
  const numbers = []; // each item's own: a list may leave some out
  let n = first;
  for (; n < lines.length && !isBlank(lines[n]); n += 1) {
    if (sign.test(lines[n].text)) {
      items.push([afterSign(lines[n], sign)]);
      numbers.push(Number(sign.exec(lines[n].text)[1]));
    } else if (/^\s+\S/.test(lines[n].text)) items.at(-1).push(afterSign(lines[n], BULLET));
    else break;
  }
  return [{ type: "list", ordered, numbers, items }, n];
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

function afterSign(line, sign) {
  const skip = sign.exec(line.text)?.[0].length ?? 0;
  return trimmed({ text: line.text.slice(skip), start: line.start + skip, end: line.end });
}

function trimmed({ text, start, end }) {
  const lead = text.length - text.trimStart().length;
  const tail = text.length - text.trimEnd().length;
  return lead === text.length ? { start, end: start } : { start: start + lead, end: end - tail };
}
