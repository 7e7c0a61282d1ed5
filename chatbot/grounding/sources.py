"""A passage read for comparison: its sentences, and the units that can be read by themselves. No I/O.

Sentences that differ by their amounts alone ("연회비는 5만원입니다", "연회비는 1만원입니다") are of two products, and
neither says of which. Among the sources of an answer each is read with the headings that only it stands under, and
where both stand under the same ones with the sentence before it. A table is read from the caption on that names the
unit of its numbers.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from chatbot.grounding.asked import depends_on_another, points_back
from chatbot.grounding.departures import words_without
from chatbot.grounding.negation import Polarity
from chatbot.grounding.numbers import QuantifiedText
from chatbot.grounding.sentences import passage_sentences
from chatbot.grounding.stems import features
from knowledge.passage import Passage

_LONGEST_BLOCK: Final = 1500
"""Characters of a table or a list that is quoted whole."""
BLOCK_MARK: Final = re.compile(r"\||[-*•·○●◦▪∙※→▶►▷☞■□◆◇◈★☆✓✔①-⑳]|\(?\d{1,2}[.)]\s|[가-하][.)]\s")
_INTRODUCES: Final = re.compile(
    r"(?:[:：]|다음과 같\S{0,6}|아래와 같\S{0,6}|\b(?:as follows|the following|these)\b[^.]{0,40})[.:]?\s*\Z"
    r"|^(?:다음|아래)(?:의|에 해당|\s?(?:사유|경우|서류|조건|방법|순서|절차|각 호))",
    re.IGNORECASE,
)
_LABEL_LINE: Final = re.compile(r"[^\n|.]{1,60}[:：]|\[[^\]\n]{1,60}\]|【[^】\n]{1,60}】|<[^>\n]{1,60}>")
_LABELLED: Final = re.compile(r"[\s*>\-•]{0,8}[가-힣A-Za-z]{1,12}\s?[:：]\s")
# What stands in a line behind its label is of that label: "- **한도**: 300만원. …", "5. 수수료: …", "**Costs.** …".
_LED: Final = re.compile(
    rf"(?:(?:{BLOCK_MARK.pattern})\s?)?\*\*[^*\n]{{1,60}}\*\*|(?:{BLOCK_MARK.pattern})\s?[^\n|.:：]{{1,20}}[:：]\s"
)
_TITLE: Final = re.compile(r"\*\*[^*\n]{1,60}\*\*[:：.]?|[■□▶►▷☞◆◇◈★☆]\s?[^\n|.:：?\d]{1,40}(?<![다요죠까음함됨임])")
_CAPTION: Final = re.compile(r"(?:단위|units?)\s{0,3}[:：]", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class SourceSentence:
    """A sentence of source `n`, or several that are read together: the features in it, beside it and elsewhere.

    `start` is its offset in the passage, `place` the headings that it stands under, the document's title first.
    `frame` is what it says, without its amounts; "" of one that states none. Of a row they are the column heads and
    the label, and `table` is where its table begins. `label` are the headings without which it may be taken for
    another sentence's; `needs_context`: it may be so under these, too, or points back to what stands before it.
    `caption` is where the sentence begins that names the unit of a row's numbers; -1 where the row names it itself.
    """

    n: int
    start: int
    text: str
    own: frozenset[str]
    beside: frozenset[str]
    elsewhere: frozenset[str]
    quantified: QuantifiedText
    polarity: Polarity
    place: tuple[str, ...] = ()
    frame: str = ""
    table: int = -1
    label: tuple[str, ...] = ()
    needs_context: bool = False
    caption: int = -1

    @property
    def end(self) -> int:
        """The offset of its end in the passage, exclusive."""
        return self.start + len(self.text)

    @property
    def is_row(self) -> bool:
        """Whether it is a row of a table."""
        return self.text.startswith("|")

    @property
    def is_heading(self) -> bool:
        """Whether it is marked as a heading."""
        return self.text.startswith("#")

    @property
    def amounts(self) -> tuple[object, ...]:
        """What it states, of a row beside its label."""
        label_end = self.start + len("|".join(self.text.split("|")[:2])) if self.is_row else self.start
        return tuple(q.readings or q.numbers for q in self.quantified.quantities if q.start >= label_end)


@dataclass(frozen=True, slots=True)
class Source:
    """A passage, read: `head` is what a customer sees beside its text, `names` the features of title and product."""

    text: str
    above: frozenset[str]
    head: QuantifiedText
    whole: QuantifiedText
    names: frozenset[str]
    content: frozenset[str]
    sentences: tuple[SourceSentence, ...]
    units: tuple[SourceSentence, ...]

    @property
    def headings(self) -> frozenset[str]:
        """Its title, its sections and its lines that are marked as headings."""
        return self.above.union(*(sentence.place for sentence in self.sentences))

    def unit_of(self, sentence: SourceSentence) -> SourceSentence | None:
        """Return the unit that holds a sentence of this passage; None for a heading."""
        return next((unit for unit in self.units if unit.start <= sentence.start < unit.end), None)


@lru_cache(maxsize=1024)
def read_source(passage: Passage) -> Source:
    """Read a passage; the same few answer most questions, so the results are kept (some 20 KiB each)."""
    since = passage.effective_from.isoformat() if passage.effective_from else ""
    head = "\n".join(part for part in (passage.title, passage.section, since) if part)
    names = features(" ".join((passage.title, passage.section, passage.product or "")))
    sentences = _sentences(passage, names)
    return Source(
        passage.text,
        frozenset(_Place(passage).at("")),
        QuantifiedText.read(head),
        QuantifiedText.read(f"{head}\n{passage.text}"),
        names,
        names.union(*(sentence.own for sentence in sentences)),
        tuple(sentences),
        tuple(_units(passage.text, sentences)),
    )


def told_apart(sources: Sequence[Source]) -> list[Source]:
    """Return the sources of one answer, numbered from 1, with what tells their sentences apart."""
    numbered = [
        replace(source, sentences=tuple(replace(sentence, n=n) for sentence in source.sentences))
        for n, source in enumerate(sources, start=1)
    ]
    alike: defaultdict[str, _Alike] = defaultdict(_new_alike)
    for source in numbered:
        for sentence in source.sentences:
            alike[sentence.frame][_group(sentence)].add(sentence.amounts)
    return [_told_apart(source, alike) for source in numbered]


_Group = tuple[tuple[str, ...], int, int]
_Alike = defaultdict[_Group, set[tuple[object, ...]]]
"""The amounts of what has one frame, by place; those of rows by table, too."""


def _new_alike() -> _Alike:
    return defaultdict(set)


def _group(sentence: SourceSentence) -> _Group:
    return (sentence.place, sentence.n, sentence.table) if sentence.is_row else (sentence.place, 0, 0)


def _told_apart(source: Source, alike: Mapping[str, _Alike]) -> Source:
    sentences = tuple(_with_label(sentence, alike[sentence.frame]) for sentence in source.sentences)
    return replace(source, sentences=sentences, units=tuple(_read_with(source, sentences)))


def _with_label(sentence: SourceSentence, alike: _Alike) -> SourceSentence:
    """Return a sentence with the headings that tell it from those that say the same of other amounts."""
    if not sentence.frame:
        return sentence
    own = sentence.amounts
    # Tables that have a row in common are no two: one stands in two passages, or a label is said twice.
    others = [
        place
        for (place, _, _), amounts in alike.items()
        if (own not in amounts if sentence.is_row else len(amounts) > (own in amounts))
    ]
    label = tuple(part for part in sentence.place if any(part not in place for place in others))
    needs_context = sentence.needs_context or any(set(sentence.place) <= set(place) for place in others)
    return replace(sentence, label=label, needs_context=needs_context)


def _read_with(source: Source, sentences: Sequence[SourceSentence]) -> Iterator[SourceSentence]:
    """Yield the units of a source, each with its headings, and from the sentence on that says what it is of."""
    at_start = {sentence.start: at for at, sentence in enumerate(sentences)}
    for unit in source.units:
        first = at_start[unit.start]
        inside = _inside(unit, sentences, first)
        label = tuple(part for part in inside[0].place if any(part in sentence.label for sentence in inside))
        before = sentences[_beginning(sentences, first, inside) : first]
        if before and unit.end - before[0].start <= _LONGEST_BLOCK:
            yield replace(_joined(source.text, [*before, *inside]), label=label)
        else:
            captions = {row.caption for row in inside}
            label += tuple(sentence.text for sentence in before if sentence.start in captions)
            yield replace(unit, n=inside[0].n, label=label)


def _inside(unit: SourceSentence, sentences: Sequence[SourceSentence], first: int) -> Sequence[SourceSentence]:
    end = first
    while end < len(sentences) and sentences[end].start < unit.end:
        end += 1
    return sentences[first:end]


def _beginning(sentences: Sequence[SourceSentence], first: int, inside: Sequence[SourceSentence]) -> int:
    """Return from which sentence on a unit can be read: its first one where none before says what it is of."""
    begin = _telling(sentences, first) if any(s.needs_context for s in inside if s.is_row or s is inside[0]) else first
    captions = {row.caption for row in inside if row.caption >= 0}
    return next((at for at in range(begin) if sentences[at].start in captions), begin) if captions else begin


def _telling(sentences: Sequence[SourceSentence], at: int) -> int:
    """Return which sentence before this one says what it is of; itself where none does."""
    begin = at
    while begin > 0 and not (sentences[begin - 1].is_heading or sentences[begin - 1].is_row):
        begin -= 1
        if sentences[at].start - sentences[begin].start > _LONGEST_BLOCK:
            return at
        if not sentences[begin].needs_context:
            return begin
    return at


def _sentences(passage: Passage, names: frozenset[str]) -> list[SourceSentence]:
    pieces = passage_sentences(passage.text)
    own = [features(piece.text) for piece in pieces]
    everything = names.union(*own)
    quantified = QuantifiedText.read(passage.text)
    sentences: list[SourceSentence] = []
    place = _Place(passage)
    head, last_caption = 0, -1
    for at, piece in enumerate(pieces):
        is_row = piece.text.startswith("|")
        in_table = is_row and bool(sentences) and sentences[-1].is_row
        head = head if in_table and _goes_on(passage.text, sentences[-1], piece.start) else at
        neighbours = own[max(0, at - 1)] | own[min(len(own) - 1, at + 1)]
        sentence = SourceSentence(
            n=0,
            start=piece.start,
            text=piece.text,
            own=own[at],
            beside=neighbours | own[head] | names if is_row else neighbours | names,
            elsewhere=everything,
            quantified=QuantifiedText(piece.text, quantified.within(piece.start, piece.start + len(piece.text))),
            polarity=Polarity.of(piece.text),
            place=place.at(piece.text),
            table=pieces[head].start,
        )
        caption = last_caption if last_caption >= 0 and _lacks_units(sentence, pieces[head].text) else -1
        needs_context = caption >= 0 or points_back(piece.text)
        frame = _frame(sentence, pieces[head].text)
        sentences.append(replace(sentence, frame=frame, caption=caption, needs_context=needs_context))
        if not is_row and _CAPTION.search(piece.text):
            last_caption = piece.start
    return sentences


def _lacks_units(row: SourceSentence, head: str) -> bool:
    """Return whether numbers of a row have a unit that neither the row nor its column heads name."""
    if not row.is_row:
        return False
    alone = QuantifiedText.read(f"{head}\n{row.text}").quantities
    known = sum(bool(quantity.readings) for quantity in alone if quantity.start > len(head))
    return known < sum(bool(quantity.readings) for quantity in row.quantified.quantities)


class _Place:
    """The headings that the sentences of a passage stand under, from its title on."""

    def __init__(self, passage: Passage) -> None:
        self._above = [passage.title, *passage.section.split(" > ")]
        self._headings: dict[int, str] = {}

    def at(self, text: str) -> tuple[str, ...]:
        """Return the headings above the next sentence, each once; one that is a heading is the last of its own."""
        if text.startswith("#"):
            heading = text.lstrip("#")
            level = len(text) - len(heading)
            self._headings = {n: other for n, other in self._headings.items() if n < level} | {level: heading}
        return tuple(
            dict.fromkeys(name for part in [*self._above, *self._headings.values()] if (name := part.strip(" *_")))
        )


def _frame(sentence: SourceSentence, head: str) -> str:
    """Return what a sentence or a row says without its amounts; "" where it has none, or nothing but these."""
    if sentence.is_heading or not sentence.amounts or not (sentence.own or sentence.is_row):
        return ""
    if sentence.is_row:
        return "" if head == sentence.text else "|".join([head, *sentence.text.split("|")[1:2]])
    spans = [(q.start - sentence.start, q.end - sentence.start) for q in sentence.quantified.quantities]
    return words_without(sentence.text, spans)


def _units(text: str, sentences: Sequence[SourceSentence]) -> Iterator[SourceSentence]:
    """Yield what can be read by itself, no heading.

    Sentences, a table, a list or table with what introduces it, a sentence with what restricts it ("단, …"), a line
    with the label that it begins with, a title that is marked as such with what it stands over.
    """
    for block in _blocks(text, sentences):
        if len(block) > 1 and block[-1].end - block[0].start <= _LONGEST_BLOCK:
            yield _joined(text, block)
        else:
            yield from (part for part in block if not part.is_heading)


def _joined(text: str, parts: Sequence[SourceSentence]) -> SourceSentence:
    """Return several sentences of a passage as one."""
    whole = text[parts[0].start : parts[-1].end]
    own = frozenset().union(*(part.own for part in parts))
    inside = tuple(quantity for part in parts for quantity in part.quantified.quantities)
    return replace(parts[0], text=whole, own=own, quantified=QuantifiedText(whole, inside))


def _blocks(text: str, sentences: Sequence[SourceSentence]) -> Iterator[list[SourceSentence]]:
    """Yield the sentences that belong together."""
    block: list[SourceSentence] = []
    in_list = False
    for sentence in sentences:
        last = block[-1] if block else None
        in_list = last is not None and _goes_on_as_list(text, sentence, last, in_list=in_list)
        belongs = last is not None and (
            in_list or _belongs_to(text, sentence, last) or _stands_behind_label(text, sentence, block)
        )
        if block and not belongs:
            yield block
            block = []
        block.append(sentence)
    if block:
        yield block


def _goes_on(text: str, last: SourceSentence, start: int) -> bool:
    """Whether a row goes on a table: an empty line ends it."""
    return text[last.end : start].count("\n") <= 1


def _goes_on_as_list(text: str, sentence: SourceSentence, last: SourceSentence, *, in_list: bool) -> bool:
    """Whether a sentence is an item of a list that is introduced, or a second sentence in an item's line."""
    if sentence.is_row or last.is_row:
        return False
    is_item = BLOCK_MARK.match(sentence.text) is not None
    if in_list:
        return is_item or "\n" not in text[last.end : sentence.start]
    return is_item and _INTRODUCES.search(last.text) is not None


def _stands_behind_label(text: str, sentence: SourceSentence, block: Sequence[SourceSentence]) -> bool:
    """Whether a sentence stands in the line that a label begins."""
    is_near = sentence.start - block[0].start <= _LONGEST_BLOCK
    return is_near and _LED.match(block[0].text) is not None and "\n" not in text[block[0].start : sentence.start]


def _belongs_to(text: str, sentence: SourceSentence, last: SourceSentence) -> bool:
    """Whether a sentence is the next row of a table, what is introduced or stands under a title, or a restriction."""
    if sentence.is_row and last.is_row:
        return _goes_on(text, last, sentence.start)
    if sentence.is_row:
        return _INTRODUCES.search(last.text) is not None or _TITLE.fullmatch(last.text) is not None
    if last.is_row or last.is_heading:
        return False
    between = text[last.end : sentence.start]
    if _LABEL_LINE.fullmatch(last.text):  # and the label of a value, which stands in its line, goes on no other
        return between.count("\n") == 1
    if _TITLE.fullmatch(last.text):
        return not sentence.is_heading and sentence.text[:1] != last.text[:1]
    return depends_on_another(sentence.text) and not (_LABELLED.match(sentence.text) and _LABELLED.match(last.text))
