"""A passage read for comparison: its sentences, and the units that can be read by themselves. No I/O."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from chatbot.grounding.asked import depends_on_another
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


@dataclass(frozen=True, slots=True)
class SourceSentence:
    """A sentence of source `n`, or several that are read together: the features in it, beside it and elsewhere.

    `start` is its offset in the passage.
    """

    n: int
    start: int
    text: str
    own: frozenset[str]
    beside: frozenset[str]
    elsewhere: frozenset[str]
    quantified: QuantifiedText
    polarity: Polarity

    @property
    def end(self) -> int:
        """The offset of its end in the passage, exclusive."""
        return self.start + len(self.text)

    @property
    def is_row(self) -> bool:
        """Whether it is a row of a table."""
        return self.text.startswith("|")


@dataclass(frozen=True, slots=True)
class Source:
    """A passage, read: `head` is what a customer sees beside its text, `names` the features of title and product."""

    head: QuantifiedText
    whole: QuantifiedText
    names: frozenset[str]
    content: frozenset[str]
    sentences: tuple[SourceSentence, ...]
    units: tuple[SourceSentence, ...]

    @property
    def headings(self) -> tuple[str, ...]:
        """Its lines that are marked as headings."""
        return tuple(sentence.text for sentence in self.sentences if sentence.text.startswith("#"))

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
        QuantifiedText.read(head),
        QuantifiedText.read(f"{head}\n{passage.text}"),
        names,
        names.union(*(sentence.own for sentence in sentences)),
        tuple(sentences),
        tuple(_units(passage.text, sentences)),
    )


def _sentences(passage: Passage, names: frozenset[str]) -> list[SourceSentence]:
    pieces = passage_sentences(passage.text)
    own = [features(piece.text) for piece in pieces]
    everything = names.union(*own)
    quantified = QuantifiedText.read(passage.text)
    sentences: list[SourceSentence] = []
    table_head = -1
    for at, piece in enumerate(pieces):
        is_row = piece.text.startswith("|")
        table_head = (table_head if table_head >= 0 else at) if is_row else -1
        neighbours = own[max(0, at - 1)] | own[min(len(own) - 1, at + 1)]
        beside = neighbours | (own[table_head] if is_row else frozenset()) | names
        end = piece.start + len(piece.text)
        inside = quantified.within(piece.start, end)
        sentences.append(
            SourceSentence(
                n=0,
                start=piece.start,
                text=piece.text,
                own=own[at],
                beside=beside,
                elsewhere=everything,
                quantified=QuantifiedText(piece.text, inside),
                polarity=Polarity.of(piece.text),
            )
        )
    return sentences


def _units(text: str, sentences: Sequence[SourceSentence]) -> Iterator[SourceSentence]:
    """Yield what can be read by itself, no heading.

    Sentences, a table, a list or table with what introduces it, a sentence with what restricts it ("단, …").
    """
    for block in _blocks(text, sentences):
        start, end = block[0].start, block[-1].end
        if len(block) > 1 and end - start <= _LONGEST_BLOCK:
            own = frozenset().union(*(part.own for part in block))
            inside = tuple(quantity for part in block for quantity in part.quantified.quantities)
            yield replace(block[0], text=text[start:end], own=own, quantified=QuantifiedText(text[start:end], inside))
        else:
            yield from (part for part in block if not part.text.startswith("#"))


def _blocks(text: str, sentences: Sequence[SourceSentence]) -> Iterator[list[SourceSentence]]:
    """Yield the sentences that belong together."""
    block: list[SourceSentence] = []
    in_list = False
    for sentence in sentences:
        last = block[-1] if block else None
        in_list = last is not None and _goes_on_as_list(text, sentence, last, in_list=in_list)
        belongs = last is not None and (in_list or _belongs_to(text, sentence, last))
        if block and not belongs:
            yield block
            block = []
        block.append(sentence)
    if block:
        yield block


def _goes_on_as_list(text: str, sentence: SourceSentence, last: SourceSentence, *, in_list: bool) -> bool:
    """Whether a sentence is an item of a list that is introduced, or a second sentence in an item's line."""
    if sentence.is_row or last.is_row:
        return False
    is_item = BLOCK_MARK.match(sentence.text) is not None
    if in_list:
        return is_item or "\n" not in text[last.end : sentence.start]
    return is_item and _INTRODUCES.search(last.text) is not None


def _belongs_to(text: str, sentence: SourceSentence, last: SourceSentence) -> bool:
    """Whether a sentence is the next row of a table, the table that is introduced, or a restriction."""
    if sentence.is_row and last.is_row:  # an empty line ends a table
        return text[last.end : sentence.start].count("\n") <= 1
    if sentence.is_row:
        return _INTRODUCES.search(last.text) is not None
    return not last.is_row and not last.text.startswith("#") and depends_on_another(sentence.text)
