"""Check whether a unit of a passage supports a sentence: numbers, table rows, product and polarity. No I/O."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from chatbot.grounding.negation import same_polarity
from chatbot.grounding.numbers import QuantifiedText, quantities, unsupported_by
from chatbot.grounding.plain_text import plain_text
from chatbot.grounding.quantity import CURRENCIES, PERCENT, Quantity
from chatbot.grounding.sentences import passage_sentences
from chatbot.quotes import features, pieces_of
from knowledge.passage import Passage

_SUPPORTED: Final = 0.5
"""The share of a sentence's content that its unit must contain."""
_AMOUNTS: Final = frozenset({*CURRENCIES, PERCENT})
_NAME_WORDS: Final = 3
"""The number of words before an amount that name it."""
_WORD: Final = re.compile(r"[^\W\d_]+")
MOST_NUMBERS: Final = 30
"""A sentence with more numbers is not supported."""


@dataclass(frozen=True, slots=True)
class CheckedUnit:
    """A unit of source `n`; `others` are words that name only other sources, and `contact` needs no source."""

    n: int
    text: str
    content: frozenset[str]
    others: frozenset[str]
    quantified: QuantifiedText
    contact: QuantifiedText
    rows: tuple[str, ...]
    sentences: tuple[str, ...]
    prose: tuple[str, ...]
    outside_rows: QuantifiedText
    weights: dict[str, float] = field(compare=False)

    def share(self, sentence: str) -> float:
        """Return the weighted share in [0, 1] of a sentence's content that the unit contains."""
        wanted = features(sentence)
        held = math.fsum(self.weights.get(word, 1.0) for word in wanted & self.content)
        return held / (math.fsum(self.weights.get(word, 1.0) for word in wanted) or 1.0)

    def supports(self, sentence: str) -> bool:
        """Return whether the unit supports a complete sentence, judged by content, numbers and polarity."""
        if self.share(sentence) < _SUPPORTED or not self.states(sentence):
            return False
        wanted = features(sentence)
        nearest = max(self.sentences, key=lambda other: len(features(other) & wanted), default="")
        return same_polarity(sentence, nearest)

    def states(self, sentence: str) -> bool:
        """Return whether the unit states all numbers of a sentence, in the named table row, for the same product."""
        claimed = unsupported_by(quantities(sentence), [self.contact])
        if len(claimed) > MOST_NUMBERS or features(sentence) & self.others:
            return False
        if unsupported_by(claimed, [self.quantified]) or not all(self.names(one, sentence) for one in claimed):
            return False
        if not self.rows or not claimed:
            return True
        named = QuantifiedText.read("\n".join([self.rows[0], *_named(self.rows, sentence)]))
        return not unsupported_by(claimed, [named, self.outside_rows])

    def names(self, claimed: Quantity, sentence: str) -> bool:
        """Return whether a sentence names an amount as the unit's prose does: "a cable charge of 8,000".

        It must contain over half of the weight of the words before the amount. `states` checks amounts of tables.
        """
        if claimed.kinds.isdisjoint(_AMOUNTS):
            return True
        wanted, places = features(sentence), 0
        for stated in self.prose:
            for quantity in quantities(stated):
                if quantity.supports(claimed):
                    places += 1
                    words = features(" ".join(_WORD.findall(plain_text(stated)[: quantity.start])[-_NAME_WORDS:]))
                    weight = {word: self.weights.get(word, 1.0) for word in words}
                    if 2 * math.fsum(weight[word] for word in words & wanted) > math.fsum(weight.values()) or not words:
                        return True
        return not places


def checked_units(sources: Sequence[Passage], *, question: str, contact: str) -> tuple[CheckedUnit, ...]:
    """Return the units of an answer's sources; words of the question never count as names of other sources."""
    names = [features(f"{passage.title} {passage.product or ''}") for passage in sources]
    asked, telephone = features(question), QuantifiedText.read(contact)
    read = [(n, text) for n, passage in enumerate(sources, 1) for text in pieces_of(passage)]
    counts = Counter(word for _, text in read for word in features(text))
    weights = {word: math.log(1 + len(read) / count) for word, count in counts.items()}
    everything = [features(f"{passage.heading} {passage.text}") for passage in sources]
    units = []
    for n, text in read:
        passage = sources[n - 1]
        others = frozenset[str]().union(*(name for m, name in enumerate(names, 1) if m != n))
        lines = text.splitlines()
        rows = tuple(line for line in lines if line.lstrip().startswith("|"))
        prose = "\n".join(line for line in lines if line not in rows)
        heading = f"{passage.heading}\n{passage.effective_from.isoformat() if passage.effective_from else ''}"
        units.append(
            CheckedUnit(
                n=n,
                text=text,
                content=features(f"{heading} {text}"),
                others=others - everything[n - 1] - asked,
                quantified=QuantifiedText.read(f"{heading}\n{text}"),
                contact=telephone,
                rows=rows,
                sentences=tuple(passage_sentences(text)),
                prose=tuple(passage_sentences(prose)),
                outside_rows=QuantifiedText.read(prose),
                weights=weights,
            )
        )
    return tuple(units)


def _named(rows: Sequence[str], sentence: str) -> list[str]:
    """Return the rows whose labels share the most with a sentence; if none matches, return only a sole row."""
    wanted, claimed = features(sentence), QuantifiedText.read(sentence)
    labels = [row.strip().strip("|").split("|")[0] for row in rows[1:]]
    shared = [
        len(features(label) & wanted) + sum(claimed.supports(quantity) for quantity in quantities(label))
        for label in labels
    ]
    most = max(shared, default=0)
    return [row for row, count in zip(rows[1:], shared, strict=True) if count == most and (most or len(labels) == 1)]
