// Answers and passages as DOM nodes, for customers and for staff alike: blocks of the small Markdown, citation markers
// behind what they prove, highlights.

import { el } from "./dom.js";
import { parseBlocks, parseInline } from "./markdown.js";
import { telephoneLink, telephonesIn } from "./telephone.js";
import { utf16Offset } from "./text.js";

/**
 * Show `text` in `container`, touching only blocks that changed, so that selection and focus survive a growing answer.
 * `markers` are `{end, ...}` with `end` in code points, each made into a node by `makeMarker`.
 */
export function renderAnswer(container, text, markers, makeMarker) {
  const place = (node, marker) => groupAt(node).append(makeMarker(marker));
  const placed = placeMarkers(text, markers);
  const blocks = parseBlocks(text).map((block, n, all) => {
    const from = n === 0 ? -1 : block.start;
    const to = n === all.length - 1 ? Infinity : all[n + 1].start;
    return { block, markers: placed.filter(({ at }) => at > from && at <= to) };
  });
  const focused = container.contains(document.activeElement) ? document.activeElement.dataset.cite : undefined;
  blocks.forEach(({ block, markers: own }, n) => {
    const key = JSON.stringify([block.type, text.slice(block.start, block.end), own.map((m) => [m.at - block.start, m.key])]);
    const old = container.children[n];
    if (old?.dataset.key === key) return;
    const fresh = new Painter(text, own, [], place, "mark").paint(block);
    fresh.dataset.key = key;
    if (old) old.replaceWith(fresh);
    else container.append(fresh);
  });
  while (container.children.length > blocks.length) container.lastElementChild.remove();
  if (focused && !container.contains(document.activeElement)) {
    container.querySelector(`[data-cite="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
  }
}

/**
 * Return nodes for a passage with the UTF-16 ranges `marks` inside elements of `tag`; before a mark (also an empty one)
 * stands what was `removed` there.
 */
export function renderPassage(text, marks, tag = "mark") {
  const place = (node, { removed }) => node.append(el("del", {}, removed));
  const gone = marks.filter(({ removed }) => removed).map((mark) => ({ ...mark, at: mark.start }));
  return parseBlocks(text).map((block, n, all) => {
    const [from, to] = [n === 0 ? 0 : block.start, all[n + 1]?.start ?? Infinity];
    return new Painter(text, gone.filter(({ at }) => at >= from && at < to), marks, place, tag).paint(block);
  });
}

function placeMarkers(text, markers) {
  const placed = markers.map((marker) => {
    let at = utf16Offset(text, marker.end);
    while (at > 0 && /\s/.test(text[at - 1])) at -= 1; // the marker stands at the word, not behind the line break
    return { ...marker, at };
  });
  return placed.sort((a, b) => a.at - b.at || a.n - b.n);
}

const BLOCKS = "p, ul, ol, li, blockquote, .scroll, table, thead, tbody, tr, th, td";

class Painter {
  /** `place(node, marker)` adds a marker to the end of a node; `tag` is the element around what `marks` name. */
  constructor(text, markers, marks, place, tag) {
    this.text = text;
    this.pending = [...markers];
    this.marks = marks;
    this.place = place;
    this.tag = tag;
    this.telephones = telephonesIn(text);
  }

  paint(block) {
    const node = this[block.type](block);
    let last = node;
    while (last.lastElementChild?.matches(BLOCKS)) last = last.lastElementChild;
    this.#markersUpTo(Infinity, last);
    return node;
  }

  paragraph({ lines }) {
    const node = el("p");
    this.#lines(node, lines);
    return node;
  }

  heading({ lines }) {
    const node = el("p", { class: "heading" });
    this.#lines(node, lines);
    return node;
  }

  list({ ordered, numbers, items }) {
    const node = el(ordered ? "ol" : "ul");
    items.forEach((blocks, n) => {
      const item = el("li", { value: ordered ? numbers[n] : null });
      this.#blocks(item, blocks);
      node.append(item);
    });
    return node;
  }

  quote({ blocks }) {
    const node = el("blockquote");
    this.#blocks(node, blocks);
    return node;
  }

  table({ header, rows }) {
    const table = el("table");
    if (header) table.append(el("thead", {}, this.#row(header, "th")));
    table.append(el("tbody", {}, ...rows.map((cells) => this.#row(cells, "td"))));
    // Wide tables scroll by themselves, also by keyboard, instead of widening the page.
    return el("div", { class: "scroll", tabindex: "0" }, table);
  }

  /** Add the blocks to `node`, a paragraph at its beginning as bare lines. */
  #blocks(node, blocks) {
    blocks.forEach((block, n) => {
      if (n === 0 && block.type === "paragraph") this.#lines(node, block.lines);
      else node.append(this[block.type](block));
    });
  }

  #row(cells, tag) {
    const row = el("tr");
    for (const cell of cells) {
      const node = el(tag, tag === "th" ? { scope: "col" } : {});
      this.#run(node, cell);
      row.append(node);
    }
    return row;
  }

  #lines(node, lines) {
    lines.forEach((line, n) => {
      if (n > 0) node.append(el("br"));
      this.#run(node, line);
    });
  }

  #run(node, { start, end }) {
    for (const run of parseInline(this.text, start, end)) {
      this.#markersUpTo(run.start, node);
      if (run.br) node.append(el("br"));
      else this.#text(run.bold ? node.appendChild(el("strong")) : node, run);
    }
    this.#markersUpTo(end, node);
  }

  #text(node, { start, end }) {
    const inside = (at) => at > start && at < end;
    const cuts = [...this.pending.map((m) => m.at), ...[...this.marks, ...this.telephones].flatMap((m) => [m.start, m.end])].filter(inside);
    let from = start;
    for (const to of [...new Set(cuts)].sort((a, b) => a - b).concat(end)) {
      const around = (range) => range.start <= from && to <= range.end;
      const number = this.telephones.find(around);
      const piece = this.text.slice(from, to);
      const shown = number ? telephoneLink(this.text.slice(number.start, number.end), piece) : piece;
      node.append(this.marks.some(around) ? el(this.tag, {}, shown) : shown);
      this.#markersUpTo(to, node);
      from = to;
    }
  }

  #markersUpTo(limit, node) {
    while (this.pending.length && this.pending[0].at <= limit) this.place(node, this.pending.shift());
  }
}

/** Return the group of markers at the end of `node`; it holds the last word too, so that no line begins with a marker. */
function groupAt(node) {
  const last = node.lastChild;
  if (last?.className === "cites") return last;
  const word = last?.nodeType === Node.TEXT_NODE ? (/\S{1,16}$/u.exec(last.data)?.[0] ?? "") : "";
  if (word) last.deleteData(last.length - word.length, word.length);
  const group = el("span", { class: "cites" }, word);
  node.append(group);
  return group;
}
