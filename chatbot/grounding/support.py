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
from chatbot.quotes import features, units_of
from knowledge.passage import Passage

_LEAST_SHARE: Final = 0.5  # of a sentence's content, which its unit must contain
_AMOUNTS: Final = frozenset({*CURRENCIES, PERCENT})
_NAME_WORDS: Final = 3  # the words before an amount that name it
_WORD: Final = re.compile(r"[^\W\d_]+")
MOST_NUMBERS: Final = 30  # a sentence with more is not supported


@dataclass(frozen=True, slots=True)
class CheckedUnit:
    """A unit of source `n`, read once for all sentences of an answer."""

    n: int
    text: str
    content: frozenset[str]  # features of the source's heading and the unit
    other_names: frozenset[str]  # features that name only other sources
    quantified: QuantifiedText  # the source's heading and the unit
    contact: QuantifiedText  # the bank's telephone number, which needs no source
    rows: tuple[str, ...]  # of tables, headings included
    sentences: tuple[str, ...]
    prose: tuple[str, ...]  # the sentences outside tables
    quantified_prose: QuantifiedText
    weights: dict[str, float] = field(compare=False)  # of features; rarer ones weigh more

    def share(self, sentence: str) -> float:
        """Return the weighted share in [0, 1] of a sentence's content that the unit contains."""
        sentence_features = features(sentence)
        return self._weight(sentence_features & self.content) / (self._weight(sentence_features) or 1.0)

    def _weight(self, words: frozenset[str]) -> float:
        return math.fsum(self.weights.get(word, 1.0) for word in words)

    def supports(self, sentence: str) -> bool:
        """Return whether the unit supports a complete sentence, judged by content, numbers and polarity."""
        if self.share(sentence) < _LEAST_SHARE or not self.states(sentence):
            return False
        sentence_features = features(sentence)
        nearest_sentence = max(self.sentences, key=lambda other: len(features(other) & sentence_features), default="")
        return same_polarity(sentence, nearest_sentence)

    def states(self, sentence: str) -> bool:
        """Return whether the unit states all numbers of a sentence, in the named table row, for the same product."""
        claimed = unsupported_by(quantities(sentence), [self.contact])
        names_other_source = bool(features(sentence) & self.other_names)
        if names_other_source or len(claimed) > MOST_NUMBERS or unsupported_by(claimed, [self.quantified]):
            return False
        if not all(self.names_amount(amount, sentence) for amount in claimed):
            return False
        if not self.rows or not claimed:
            return True
        named_rows = QuantifiedText.read("\n".join([self.rows[0], *_named_rows(self.rows, sentence)]))
        return not unsupported_by(claimed, [named_rows, self.quantified_prose])

    def names_amount(self, claimed: Quantity, sentence: str) -> bool:
        """Return whether a sentence has most of the words before an amount in prose; True if prose lacks the amount."""
        if claimed.kinds.isdisjoint(_AMOUNTS):
            return True
        is_in_prose, sentence_words = False, features(sentence)
        for text in self.prose:
            for quantity in quantities(text):
                if not quantity.supports(claimed):
                    continue
                is_in_prose = True
                words_before = _WORD.findall(plain_text(text)[: quantity.start])
                name = features(" ".join(words_before[-_NAME_WORDS:]))
                if not name or 2 * self._weight(name & sentence_words) > self._weight(name):
                    return True
        return not is_in_prose  # `states` checks the amounts of tables


def checked_units(sources: Sequence[Passage], *, question: str, contact: str) -> tuple[CheckedUnit, ...]:
    """Return the units of an answer's sources; words of the question never count as names of other sources."""
    names = [features(f"{passage.title} {passage.product or ''}") for passage in sources]
    contents = [features(f"{passage.heading} {passage.text}") for passage in sources]
    question_words, telephone = features(question), QuantifiedText.read(contact)
    numbered_units = [(n, text) for n, passage in enumerate(sources, 1) for text in units_of(passage)]
    counts = Counter(word for _, text in numbered_units for word in features(text))
    weights = {word: math.log(1 + len(numbered_units) / count) for word, count in counts.items()}
    units = []
    for n, text in numbered_units:
        passage = sources[n - 1]
        other_names = frozenset[str]().union(*(name for m, name in enumerate(names, 1) if m != n))
        lines = text.splitlines()
        rows = tuple(line for line in lines if line.lstrip().startswith("|"))
        prose = "\n".join(line for line in lines if line not in rows)
        heading = f"{passage.heading}\n{passage.effective_from.isoformat() if passage.effective_from else ''}"
        units.append(
            CheckedUnit(
                n=n,
                text=text,
                content=features(f"{heading} {text}"),
                other_names=other_names - contents[n - 1] - question_words,
                quantified=QuantifiedText.read(f"{heading}\n{text}"),
                contact=telephone,
                rows=rows,
                sentences=tuple(passage_sentences(text)),
                prose=tuple(passage_sentences(prose)),
                quantified_prose=QuantifiedText.read(prose),
                weights=weights,
            )
        )
    return tuple(units)


def _named_rows(rows: Sequence[str], sentence: str) -> list[str]:
    """Return the rows whose labels share the most with a sentence; a table's only row need not match."""
    sentence_features, claimed = features(sentence), QuantifiedText.read(sentence)
    labels = [row.strip().strip("|").split("|")[0] for row in rows[1:]]
    shared_counts = [
        len(features(label) & sentence_features) + sum(claimed.supports(quantity) for quantity in quantities(label))
        for label in labels
    ]
    most_shared = max(shared_counts, default=0)
    if most_shared == 0 and len(labels) > 1:
        return []
    return [row for row, count in zip(rows[1:], shared_counts, strict=True) if count == most_shared]
