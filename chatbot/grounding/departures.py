"""Whether a claim says a sentence of a passage, all of it and nothing else. No I/O.

A condition left out, two words exchanged, "only" moved or a particle changed leave nearly all words of a sentence as
they were, and no list holds all that turns its meaning. So what may differ is listed instead: the form of address in a
Korean ending, whether a noun is topic or subject, articles, contractions, signs, blanks, how an item is marked, and
idle words at the beginning (yes, what the document is about). With any other difference it is another claim.
"""

import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache
from typing import Final

_WORD: Final = re.compile(r"\d+(?:[.:]\d+)*[가-힣]*|[가-힣]+|[^\W\d_]+|[^\w\s.,;:!?'\"“”‘’()\[\]{}…·•|`]")
_ITEM_MARK: Final = re.compile(
    r"[\s>#*_`\-•·○●◦▪∙⋅‣※▶►▷☞◆◇◈★☆]*(?:\(?(?P<number>\d{1,2})[.)]\s+|(?P<circled>[①-⑳])|\(?[A-Za-z가-하][.)]\s+)?\s*"
)
_THOUSANDS: Final = re.compile(r"(?<=\d),(?=\d{3})")
_SIGNS: Final = re.compile(r"(?<!\d)(?<!\d )[-–—]+(?! ?\d)|[*_]")
_CONTRACTIONS: Final = (
    ("can't", "can not"), ("cannot", "can not"), ("won't", "will not"), ("n't", " not"), ("'ll", " will"),
    ("'re", " are"), ("'ve", " have"),
)  # fmt: skip
_ARTICLE: Final = re.compile(r"\A(?:A|An|The)\b|\b(?:an?|the)\b")
_POLITE: Final = re.compile(
    r"(?:[합입]니다|해요|[한하이]다|함|이에요|예요|(?P<become>됩니다|돼요|[된되]다|됨)"
    r"|(?<=[있없않았었겠])(?:습니다|어요|다|음|는다))\Z"
)
_TOPIC_OR_SUBJECT: Final = re.compile(r"[은는이가]\Z")
_OBJECT: Final = re.compile(r"[을를]\Z")
_LABEL_AND_VALUE: Final = 2
_CELL_MARKS: Final = re.compile(r"[\s*_`]")


def restates(claim: str, sentence: str, is_idle: Callable[[str], bool]) -> bool:
    """Return whether a claim says a whole sentence and nothing else, after words at its beginning that are idle."""
    number, words = _read(claim)
    number_of_sentence, words_of_sentence = _read(sentence)
    if number and number_of_sentence and number != number_of_sentence:
        return False
    said = "".join(words_of_sentence)
    before = len("".join(words)) - len(said)
    if not said or before < 0 or not "".join(words).endswith(said):
        return False
    start = 0
    while before > 0 and is_idle(words[start]):
        before -= len(words[start])
        start += 1
    return before == 0


def reads_row(claim: str, row: str, head: str, is_idle: Callable[[str], bool]) -> bool:
    """Return whether a claim reads a row with one value: all of its label and value, their headings and idle words."""
    cells, headings = ([_read(cell)[1] for cell in line.strip().strip("|").split("|")] for line in (row, head))
    if len(cells) != len(headings) or len(cells) != _LABEL_AND_VALUE or not all(cells):
        return False
    words = _read(claim)[1]
    known = {word for cell in (*cells, *headings) for word in cell}
    of_row = all(word.removesuffix("의") in known or is_idle(word) for word in words)
    return of_row and all("".join(cell) in "".join(words) for cell in cells)


def is_part_of(heading: str, text: str) -> bool:
    """Return whether a text has the words of a heading in a row."""
    return "".join(_read(heading)[1]) in "".join(_read(text)[1])


def is_same_row(row: str, other: str) -> bool:
    """Return whether two rows of a table have the same in each cell."""
    return _cells(row) == _cells(other)


def _cells(row: str) -> list[str]:
    return [_CELL_MARKS.sub("", cell).rstrip(".") for cell in row.strip().strip("|").split("|")]


@lru_cache(maxsize=4096)
def _read(text: str) -> tuple[str, tuple[str, ...]]:
    """Return the number of a list's item, and the words of a text in the form in which they are compared."""
    mark = _ITEM_MARK.match(text)
    number, rest = ("", text) if mark is None else (mark["number"] or mark["circled"] or "", text[mark.end() :])
    plain = _ARTICLE.sub(" ", unicodedata.normalize("NFKC", rest)).lower().replace("’", "'")
    plain = _SIGNS.sub(" ", _THOUSANDS.sub("", plain))
    for short, long in _CONTRACTIONS:
        plain = plain.replace(short, long)
    words = tuple(form for word in _WORD.findall(plain) if (form := _form(word)))
    return unicodedata.normalize("NFKC", number), words


def _form(word: str) -> str:
    """Return a word without a polite ending, subject and topic marked alike."""
    if (ending := _POLITE.search(word)) is not None:
        return word[: ending.start()] + ("되" if ending["become"] else "")
    return _TOPIC_OR_SUBJECT.sub("", _OBJECT.sub("을", word))
