"""Split Korean and English text into sentences, in a stream (`feed`, `close`) or in a passage. No I/O.

The pieces concatenate to the input, and the size of the feeds does not change them. At an ambiguous full stop (an
ordinal, a date) the sentence continues: joined sentences are checked more strictly, a split number less strictly.
"""

import re
from typing import Final

# Results of `_boundary` in place of an offset:
_UNDECIDED: Final = -1
_NO_BOUNDARY: Final = 0

_MARK = re.compile(r"[.!?…。！？]+|\n")
_CLOSERS = re.compile(r"[\"'”’)\]}」』》〉】*_`]*")
_OPENERS = "\"'“‘([{「『《〈【*-•"
# Syllables that end Korean sentences: only after these does a full stop without a space end a sentence.
_ENDINGS = frozenset("다요까죠음함됨임오네라")
_OUTLINE = re.compile(r"\s{0,8}[가나다라마바사아자차카타파하]")  # the letter of a list item: "가."
_DATE_END = re.compile(r"(?:(?<!\d)\d{4}|['’]\d{2})\.\s?\d{1,2}(?:\.\s?\d{1,2})?\Z")  # 2025. 3 or 2025.3.1
_SHORT_NUMBER = re.compile(r"(?<![\d.,:%-])\d{1,2}\Z")
_LONGER_NUMBER = re.compile(r"(?<![\d.,-])\d{3,4}\Z")
_LAST_WORD = re.compile(r"[A-Za-z][A-Za-z.]{0,40}\Z")
_NEVER_LAST = frozenset(["mr", "mrs", "ms", "dr", "prof", "vs", "e.g", "i.e", "cf", "st", "rs"])
_MAY_BE_LAST = frozenset(
    """etc inc ltd co corp approx est max min incl excl a.m p.m u.s u.k p.a tel dept al no nos fig sec art
    jan feb mar apr jun jul aug sep sept oct nov dec""".split()  # noqa: SIM905  # a word list reads best as prose
)


class SentenceSplitter:
    """Splits a stream into sentences; `feed` returns the complete sentences, `close` the rest."""

    def __init__(self) -> None:
        self._scan_from = 0
        self.pending = ""  # the text of the incomplete sentence
        self.settled = 0  # the characters of `pending` that belong to this sentence whatever follows

    def feed(self, text: str, *, final: bool = False) -> list[str]:
        self.pending += text
        pieces: list[str] = []
        while (mark := _MARK.search(self.pending, self._scan_from)) is not None:
            at = mark.start()
            end = _boundary(self.pending, mark, final=final)
            if end == _UNDECIDED:
                self._scan_from = at
                self.settled = at + 1
                return pieces
            if end == _NO_BOUNDARY:
                self._scan_from = mark.end()
                continue
            pieces.append(self.pending[:end])
            self.pending = self.pending[end:]
            self._scan_from = 0
        # No undecided mark remains, so the next scan starts here.
        self._scan_from = self.settled = len(self.pending)
        return pieces

    def close(self) -> list[str]:
        pieces = self.feed("", final=True)
        if self.pending:
            pieces.append(self.pending)
        self.pending, self._scan_from, self.settled = "", 0, 0
        return pieces


def split_sentences(text: str) -> list[str]:
    """Return the sentences of a complete text; they concatenate to the text."""
    splitter = SentenceSplitter()
    return [*splitter.feed(text), *splitter.close()]


def passage_sentences(text: str) -> list[str]:
    """Return the stripped sentences of a passage, joining lines that a PDF wrapped within a sentence."""
    sentences: list[str] = []
    at = 0
    for piece in split_sentences(_unwrap(text)):
        sentences.append(text[at : at + len(piece)].strip())
        at += len(piece)
    return [sentence for sentence in sentences if sentence]


_WRAP = re.compile(r"(?<=[^\s|:.!?…。])[ \t]*(\n)(?=[^\s|#>*\-•·○●◦▪∙※→▶►▷☞■□◆◇◈★☆✓✔①-⑳\d<\[])")


def _unwrap(text: str) -> str:
    """Replace each line break inside a paragraph by a space; the length stays the same."""
    characters = list(text)
    for wrap in _WRAP.finditer(text):
        line = text[text.rfind("\n", 0, wrap.start(1)) + 1 : wrap.start(1)].lstrip()
        # Short lines are headings or labels; tables and headings are not prose.
        if len(line) >= 25 and not line.startswith(("#", "|")):
            characters[wrap.start(1)] = " "
    return "".join(characters)


def _boundary(text: str, mark: re.Match[str], *, final: bool) -> int:
    """Return the offset of the sentence's end at this mark, `_NO_BOUNDARY`, or (unless `final`) `_UNDECIDED`."""
    at = mark.start()
    if text[at] == "\n":
        return at if text[:at].strip() else _NO_BOUNDARY
    closers = _CLOSERS.match(text, mark.end())
    end = closers.end() if closers else mark.end()
    if end == len(text):
        return end if final else _UNDECIDED
    if text[end] == "\n":
        return end
    if mark.group() == ".":
        return _boundary_at_full_stop(text, at, end, final=final)
    return _boundary_by_next_character(text, at, end)


def _boundary_at_full_stop(text: str, at: int, end: int, *, final: bool) -> int:
    """Return the boundary at a full stop: none after an abbreviation, an ordinal or a part of a date."""
    before = text[at - 1] if at else " "
    is_number, is_word = before.isdigit(), before.isascii() and before.isalpha()
    if not is_number and not is_word:
        return _NO_BOUNDARY if _OUTLINE.fullmatch(text[:at]) else _boundary_by_next_character(text, at, end)
    if not text[end].isspace():
        return _NO_BOUNDARY
    if is_word:
        match = _LAST_WORD.search(text, max(0, at - 12), at)
        word = match.group().lower() if match else ""
        if word in _NEVER_LAST or (len(word) == 1 and word != "i"):
            return _NO_BOUNDARY
        if word not in _MAY_BE_LAST:
            return end
    visible = (char for char in text[end:] if char == "\n" or not char.isspace())
    following = next(visible, "\n" if final else "")
    if not following:
        return _UNDECIDED
    if following == "\n":
        return end
    word_continues = following.islower() or following.isdigit()
    continues = _number_continues(text, at, following) if is_number else word_continues
    return _NO_BOUNDARY if continues else end


def _boundary_by_next_character(text: str, at: int, end: int) -> int:
    """Return the boundary before a blank, or between a Korean ending and the beginning of a sentence."""
    following = text[end]
    if following.isspace():
        return end
    may_start = "가" <= following <= "힣" or following.isdigit() or following.isupper() or following in _OPENERS
    return end if may_start and at and text[at - 1] in _ENDINGS else _NO_BOUNDARY


def _number_continues(text: str, at: int, following: str) -> bool:
    """Return whether the number before the full stop at `at` is an ordinal or part of a date."""
    if _DATE_END.search(text, max(0, at - 16), at):
        return not (following.isascii() and following.isupper())
    if _SHORT_NUMBER.search(text, max(0, at - 4), at):
        return True
    return following.isdigit() and _LONGER_NUMBER.search(text, max(0, at - 6), at) is not None
