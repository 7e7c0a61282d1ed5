// Text as the server counts it: offsets are Unicode code points there and UTF-16 units here. Pure.

/** Return how many code points `text` has. */
export function countCodePoints(text) {
  let count = 0;
  for (const _ of text) count += 1;
  return count;
}

/** Return the UTF-16 offset of code point `offset` in `text`; beyond the end, the end. */
export function utf16Offset(text, offset) {
  let at = 0;
  for (let n = 0; n < offset && at < text.length; n += 1) at += text.codePointAt(at) > 0xffff ? 2 : 1;
  return at;
}

/** Return "ko" where `text` holds Hangul, else "en": how a screen reader should pronounce it. */
export function languageOf(text) {
  return /[\u1100-\u11ff\u3130-\u318f\uac00-\ud7af]/.test(text) ? "ko" : "en";
}

/** Return the UTF-16 offset behind the last sentence of `text` that is certainly complete; 0 where none is. */
export function completeUpTo(text) {
  let end = 0;
  // A full stop counts only with white space after it: "3." may still become "3.5%".
  for (const match of text.matchAll(/[.!?。！？…]+["'”’)\]]*(?=\s)|\n/g)) end = match.index + match[0].length;
  return end;
}

/** Return `text` without Markdown signs, to be read out. */
export function speakable(text) {
  return text
    .replace(/^\s*\|?[\s:|-]+\|?\s*$/gm, " ")
    .replace(/^[\s>]*(?:(?:[-*•]|#{1,6})\s+)?/gm, "")
    .replace(/\*\*/g, "")
    .replace(/\s*\|\s*/g, ", ")
    .replace(/\s+/g, " ")
    .replace(/(?:, ){2,}/g, ", ")
    .replace(/^[,\s]+|[,\s]+$/g, "");
}

/** Return the path of headings `section` without the document's own `title` at its beginning. */
export function sectionWithin(section, title) {
  const path = (section ?? "").split(" > ");
  return (path[0] === title ? path.slice(1) : path).join(" > ");
}

/** Return the heading right above a passage, empty where that is its document's title. */
export const leafOf = ({ section, title }) => sectionWithin(section, title).split(" > ").at(-1);

/** Return where `quote` stands in `text` as UTF-16 `{start, end}`, ignoring white space, case and signs; else null. */
export function locate(text, quote) {
  const exact = text.indexOf(quote);
  if (quote && exact !== -1) return { start: exact, end: exact + quote.length };
  const whole = lettersOf(text);
  const part = lettersOf(quote).letters;
  const found = part ? whole.letters.indexOf(part) : -1;
  if (found === -1) return null;
  return { start: whole.starts[found], end: whole.ends[found + part.length - 1] };
}

function lettersOf(text) {
  let letters = "";
  const starts = [];
  const ends = [];
  let at = 0;
  for (const character of text) {
    const end = at + character.length;
    for (const letter of character.normalize("NFKC").toLowerCase()) {
      if (!/[\p{L}\p{N}%]/u.test(letter)) continue;
      letters += letter;
      for (let unit = 0; unit < letter.length; unit += 1) {
        starts.push(at);
        ends.push(end);
      }
    }
    at = end;
  }
  return { letters, starts, ends };
}
