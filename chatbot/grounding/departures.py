"""Whether a claim says a sentence of a passage, all of it and nothing else. No I/O.

A condition left out, two words exchanged, "only" moved or a particle changed leave nearly all words of a sentence as
they were, and no list holds all that turns its meaning. So what may differ is listed instead: the form of address in
the last Korean word, whether the only noun of its kind is topic or subject, contractions, signs, blanks, how an item is
marked, and how it begins ("the documents say", the document's whole name). Otherwise it is another claim.
"""

import re
import unicodedata
from collections.abc import Collection, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Final

# Brackets are words: (370) is a loss, "[](not)" hides one, and what they enclose is what they say it of.
_WORD: Final = re.compile(r"\.?\d+(?:[.:]\d+)*[가-힣]*|[가-힣]+|[^\W\d_]+|[^\w\s.,;:!?'\"“”‘’…·•`]")
_ITEM_MARK: Final = re.compile(
    r"(?:[\s>#*_`•·○●◦▪∙⋅‣※▶►▷☞◆◇◈★☆]|-(?![\d.]))*"
    r"(?:\(?(?P<number>\d{1,2})[.)]\s+|(?P<circled>[①-⑳])|\(?(?P<letter>[A-Za-z가나다라마바사아자차카타파하])[.)]\s+)?\s*"
)
_LABEL: Final = re.compile(r"(?<=[가-힣])[*_ ]{0,4}:[*_]{0,2}(?=\s)")
_THOUSANDS: Final = re.compile(r"(?<=\d),(?=\d{3})")
_SIGNS: Final = re.compile(r"(?<!\d)(?<!\d )[-–—]+(?! ?\d)|[*_](?!\s)|(?<=\S)[*_]")
_CONTRACTIONS: Final = (
    ("can't", "can not"), ("cannot", "can not"), ("won't", "will not"), ("n't", " not"), ("'ll", " will"),
    ("'re", " are"), ("'ve", " have"),
)  # fmt: skip
_POLITE: Final = re.compile(
    r"(?:[합입]니다|해요|[한하이]다|함|이에요|예요|(?P<become>됩니다|돼요|[된되]다|됨)"
    r"|(?<=[있없않았었겠])(?:습니다|어요|다|음|는다))\Z"
)
_TOPIC_OR_SUBJECT: Final = re.compile(r"(?<=[가-힣])[은는이가]\Z")
_OBJECT: Final = re.compile(r"[을를]\Z")
_BY_DOCUMENTS: Final = re.compile(
    r"(?:(?:제공된 )?(?:문서|자료|안내문)에 따르면|according to (?:our |provided )?documents?)(?: |\Z)"
)
_SEVERAL: Final = re.compile(r"[·ㆍ/,&+]|\b(?:and|or)\b|(?:\b|(?<=[가-힣]))(?:및|또는|[과와])(?=\s)", re.IGNORECASE)
_KIND_OF_DOCUMENT: Final = re.compile(
    r"\b(?:약관|(?:상품\s?)?(?:안내|설명)(?:문|서)?|FAQ|guide|terms|information)\Z", re.IGNORECASE
)
_FEWEST_AFTER_A_NAME: Final = 3
"""Words of a sentence before which a name may stand: a shorter one may be of anything."""
_LONGEST_OPENING: Final = 200
"""Characters of a name, and of what says that documents say it."""
_UNIT: Final = re.compile(r"(?:%p?|[천만억]{0,2}원|개월|[년일회건세명시점]|krw|usd)?")
_BETWEEN_LETTERS: Final = re.compile(r"(?<![a-z]) | (?![a-z])")
_LABEL_AND_VALUE: Final = 2
_BRACKETS: Final = re.compile(r"[()\[\]{}]")


def restates(claim: str, sentence: str, names: Collection[str] = ()) -> bool:
    """Return whether a claim says a whole sentence and nothing else, but how it begins; `names` are of `name_of`."""
    number, words, whole = _read(claim)
    number_of_sentence, words_of_sentence, said = _read(sentence)
    if not said or not whole.endswith(said) or (number and number_of_sentence and number != number_of_sentence):
        return False
    if len(whole) - len(said) > _LONGEST_OPENING:
        return False
    before = _before(words, whole, said)
    return before is not None and _is_opening(before, names if len(words_of_sentence) >= _FEWEST_AFTER_A_NAME else ())


def words_without(sentence: str, spans: Sequence[tuple[int, int]]) -> str:
    """Return the words of a sentence as they are compared, with a mark in place of the characters of each span."""
    ends = [0, *(end for _, end in spans)]
    starts = [*(start for start, _ in spans), len(sentence)]
    return _read("§".join(sentence[end:start] for end, start in zip(ends, starts, strict=True)))[2]


def _before(words: Sequence[str], whole: str, said: str) -> Sequence[str] | None:
    """Return the words before what is said at the end; None where it begins within a word."""
    at = len(whole)
    for start in reversed(range(len(words))):
        at -= len(words[start])
        if at == len(whole) - len(said):
            return words[:start]
        at -= whole[at - 1] == " "
    return None


def reads_row(claim: str, row: str, head: str, names: Collection[str]) -> bool:
    """Return whether a claim reads a row with one value: its label, then its value with the whole heading or none."""
    cells, headings = (
        [_unmarked(cell.strip(), in_cell=True)[1] for cell in line.strip().strip("|").split("|")]
        for line in (row, head)
    )
    if len(cells) != len(headings) or len(cells) != _LABEL_AND_VALUE or not all(cells):
        return False
    (label, value), heading, (words, said, starts) = cells, _BRACKETS.sub("", headings[1]), _unmarked(claim)
    if label not in said or value not in said:
        return False
    longest = len(label) + len("의") + len(value) + len(heading)
    return any(
        said.startswith(label, start)
        and any(
            at in starts and _reads_value(said[at:], value, heading)
            for at in (start + len(label), start + len(label + "의"))
            if said[start:at] in {label, label + "의"}
        )
        and _is_opening(words[:n], names)
        for n, start in enumerate(starts)
        if len(said) - start <= longest
    )


@lru_cache(maxsize=4096)
def _unmarked(text: str, *, in_cell: bool = False) -> tuple[tuple[str, ...], str, tuple[int, ...]]:
    """Return the words of a text without what marks a topic or a subject, as one, and where they begin in it."""
    words = tuple(_TOPIC_OR_SUBJECT.sub("", word) for word in _read(text, in_cell=in_cell)[1])
    return words, "".join(words), (0, *accumulate(map(len, words)))


def _reads_value(text: str, value: str, heading: str) -> bool:
    before, found, after = text.partition(value)
    return bool(found) and _UNIT.fullmatch(after) is not None and before + after in {"", heading}


def name_of(title: str) -> str | None:
    """Return the name that a title gives to what its document is about; None where it names several or nothing."""
    name = "".join(_read(_KIND_OF_DOCUMENT.sub("", title.strip()))[1])
    return None if _SEVERAL.search(title) or not name else name


def _is_opening(words: Sequence[str], names: Collection[str]) -> bool:
    """Return whether words before a sentence say nothing of it: that documents say it, a name."""
    rest = _BY_DOCUMENTS.sub("", " ".join(words), count=1)
    return not rest or rest.replace(" ", "").removesuffix("의") in names


@lru_cache(maxsize=4096)
def _read(text: str, *, in_cell: bool = False) -> tuple[str, tuple[str, ...], str]:
    """Return the number of a list's item, and the words of a text in the form in which they are compared.

    The words stand there as one, too, since blanks are set freely in Korean; English ones stay apart. What stands
    before the words of a table's cell belongs to them: "- 0.5" is less.
    """
    mark = None if in_cell else _ITEM_MARK.match(text)
    number, rest = (
        ("", text) if mark is None else (mark["number"] or mark["circled"] or mark["letter"] or "", text[mark.end() :])
    )
    plain = unicodedata.normalize("NFKC", rest).lower().replace("’", "'")
    plain = _LABEL.sub("은", plain, count=1)  # "수수료: 없음" says "수수료는 없습니다"
    plain = _SIGNS.sub(" ", _THOUSANDS.sub("", plain))
    for short, long in _CONTRACTIONS:
        plain = plain.replace(short, long)
    *words, last = [_OBJECT.sub("을", word) for word in _WORD.findall(plain)] or [""]
    words += [form] if (form := _without_form_of_address(last)) else []
    marked = [at for at, word in enumerate(words) if _TOPIC_OR_SUBJECT.search(word)]
    if len(marked) == 1:  # of two nouns it tells who does it to whom
        words[marked[0]] = _as_topic(words[marked[0]])
    return unicodedata.normalize("NFKC", number), tuple(words), _BETWEEN_LETTERS.sub("", " ".join(words))


def _without_form_of_address(word: str) -> str:
    if (ending := _POLITE.search(word)) is None:
        return word
    return word[: ending.start()] + ("되" if ending["become"] else "")


def _as_topic(word: str) -> str:
    """Return a noun with one mark for topic and subject: 은 and 이 follow a final consonant, 는 and 가 none."""
    has_final = (ord(word[-2]) - ord("가")) % 28 > 0
    return word[:-1] + "은" if has_final is (word[-1] in "은이") else word
