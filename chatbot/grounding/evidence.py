"""Whether the passages support a sentence, by comparing words and, exactly, numbers; no model is called, no I/O.

The features of a sentence, weighted by their rarity among the sources, are looked for in each sentence of each passage:
those found in it count in full, those beside it (its neighbours, a table's head, the title and section) a little less,
those elsewhere in the passage half. Numbers are all or nothing: each must stand in a passage that the sentence cites.
"""

import math
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from operator import attrgetter
from typing import Final

from chatbot.grounding.asked import depends_on_another, is_question
from chatbot.grounding.boilerplate import claim_features, is_courtesy, is_refusal
from chatbot.grounding.departures import name_of, reads_row, restates
from chatbot.grounding.negation import Polarity
from chatbot.grounding.numbers import QuantifiedText, quantities, unsupported_by
from chatbot.grounding.quantity import Quantity, Statement
from chatbot.grounding.sources import BLOCK_MARK, SourceSentence, read_source, told_apart
from chatbot.grounding.stems import features, other_letters
from knowledge.bank import Bank
from knowledge.passage import Passage

# Thresholds and weights, measured on answers against their own passages and against the nearest others.
_SUPPORTED: Final = 0.55
"""Share of a sentence's weighted content that its passages must contain."""
_NEAR: Final = 0.4
"""Share from which on the passages' own sentence stands in place of one that they do not support."""
_SECOND_PASSAGE: Final = 0.12
"""Share that a second passage must add before it is cited too."""
_BESIDE: Final = 0.8
"""Weight of a feature that stands beside the sentence."""
_ELSEWHERE: Final = 0.5
"""Weight of a feature or a number that stands elsewhere in the passage."""
_CONTRADICTED: Final = 0.6
"""Factor for a sentence that denies what the claim affirms, or the other way round."""
_REPEATED: Final = 0.7
"""Share of the content from which on a claim repeats a sentence, so that its numbers must be the same."""
_RANK: Final = 0.8
"""Factor for the sentences of the next passage, when passages are quoted without a model."""
_ASKED_NUMBER: Final = 1.4
"""Factor for a sentence with a number, when the question asks how much, how long or when."""
_ECHOED: Final = 0.8
"""Share of a claim's content that the question contains, from which on the claim says no more than yes or no."""
_CLEARLY: Final = 0.15
"""Share of the content by which another sentence must be nearer to count as the repeated one."""
_NUMBER: Final = 2.0
"""Weight of a number as a multiple of the rarest word's, when choosing which sentence to quote."""
_UNNAMED: Final = 0.5
"""Factor, when choosing what to quote, for a passage that lacks a name in the question that another's title has."""

_ENDINGS: Final = frozenset({"니다", "습니", "합니", "됩니", "입니", "있습", "없습"})
"""Bigrams of Korean endings, which every sentence has."""
LONGEST_SENTENCE: Final = 2_000
MOST_NUMBERS: Final = 30
"""Characters and numbers of a sentence up to which it is judged: no answer needs more, and the work grows."""
_FEWEST_FEATURES: Final = 3
_FEWEST_ALONE: Final = 2
"""Features without which a sentence says nothing but to its question: 가능합니다."""
_ASKS_FOR_A_NUMBER: Final = re.compile(
    r"얼마|몇|언제|며칠|금리|이율|한도|수수료|\bhow (?:much|many|long|often|old|soon)\b|\bwhen\b"
    r"|\brates?\b|\bfees?\b|\blimits?\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Quote:
    """A verbatim sentence of source `n` (counted from 1).

    `place` are the headings that it stands under, and `label` those of them that a reader has to know: without them it
    may be taken for another sentence's. `start` is its offset in the passage.
    """

    n: int
    text: str
    place: tuple[str, ...] = field(default=(), compare=False)
    label: tuple[str, ...] = field(default=(), compare=False)
    start: int = field(default=0, compare=False)

    @property
    def end(self) -> int:
        """The offset of its end in the passage, exclusive."""
        return self.start + len(self.text)

    def holds(self, other: "Quote") -> bool:
        """Whether another quote is a part of this one."""
        return self.n == other.n and self.start <= other.start and other.end <= self.end

    def length_after(self, before: "Quote") -> int:
        """Return how many characters of its beginning one who has just read another quote has read."""
        if self.n == before.n:
            goes_on = before.start <= self.start <= before.end <= self.end
            return before.end - self.start if goes_on else 0
        rest = self.text.removeprefix(before.text)  # passages may have their sentences in common
        return len(self.text) - len(rest) if rest[:1].strip() == "" else 0


@dataclass(frozen=True, slots=True)
class Judgement:
    """The result of comparing one sentence with the sources.

    `claims` is False for a heading of a passage, and for a courtesy or a refusal, in whose words a claim may hide:
    "영업점 방문이 필요합니다" is made of polite ones. `quotes` are the source sentences that support a claim.
    `verbatim` are the sentences, lists or tables to show in its place: the claim restates none of them, or they hold
    further numbers of a kind that is claimed, and comparison cannot tell which of them is asked for, or whether the
    answer is yes or no. Of a claim that is not supported they are what it is near to; no answer begins with them.
    `headings` are those of the passages that a heading says.
    """

    claims: bool
    supported: bool
    quotes: tuple[Quote, ...] = ()
    verbatim: tuple[Quote, ...] = ()
    is_courtesy: bool = False
    is_refusal: bool = False
    headings: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class _Claim:
    """A sentence to be judged: its features with weights, its quantities, and which source has which quantity."""

    features: frozenset[str]
    quantities: tuple[Quantity, ...]
    polarity: Polarity | None
    weights: dict[str, float]
    total: float
    number_weight: float
    needed: dict[Statement, frozenset[int]]
    """What a source must state, with the places of the quantities for which that is enough."""
    in_words: tuple[frozenset[int], ...]
    """The places of each quantity of zero or one, which a source may state in words."""
    in_source: list[frozenset[int]] = field(default_factory=list)
    """By source: the places of the quantities that stand anywhere in it."""

    def held_by(self, text: QuantifiedText) -> frozenset[int]:
        """Return the places of the quantities that stand in a text."""
        held = frozenset[int]().union(*(self.needed[statement] for statement in self.needed.keys() & text.stated))
        return held.union(
            *(alike for alike in self.in_words if not alike <= held and text.supports(self.quantities[min(alike)]))
        )

    def count(self, quantity: Quantity) -> int:
        """Return how often the claim states this value."""
        return sum(
            other.readings == quantity.readings and other.numbers == quantity.numbers for other in self.quantities
        )

    def states(self, quantity: Quantity) -> bool:
        """Whether a source's quantity supports one of the claimed ones."""
        return any(statement in self.needed for statement in quantity.supported())

    def has_kind_of(self, quantified: QuantifiedText) -> bool:
        """Whether the text has quantities of the same kind as the claim's."""
        kinds = frozenset[str]().union(*(quantity.kinds for quantity in self.quantities))
        return any(not kinds.isdisjoint(other.kinds) for other in quantified.quantities)


@dataclass(frozen=True, slots=True)
class _Match:
    score: float
    sentence: SourceSentence


class Comparison:
    """The sources of one answer, read once; `judge` compares each of its sentences with them."""

    def __init__(self, sources: Sequence[Passage], *, question: str = "", bank: Bank | None = None) -> None:
        self._sources = told_apart([read_source(passage) for passage in sources])
        self._names = [
            {name for title in (passage.title, passage.product or "") if (name := name_of(title))}
            for passage in sources
        ]
        self._texts = [source.whole for source in self._sources]
        self._headings = {heading for source in self._sources for heading in source.headings}
        self._sentences = [sentence for source in self._sources for sentence in source.sentences]
        self._frequencies = Counter(feature for sentence in self._sentences for feature in sentence.own)
        self._question = question
        self._question_features = features(question)
        self._question_text = QuantifiedText.read(question)
        self._own_words: frozenset[str] = bank.own_words if bank else frozenset()
        self._contact_text = QuantifiedText.read(bank.telephone if bank else "")
        self._other_letters = frozenset[str]().union(
            *(other_letters(text.text) for text in [*self._texts, self._contact_text])
        )

    def judge(self, sentence: str) -> Judgement:
        """Return whether the sources support a sentence of the answer, and by which of their sentences."""
        is_long = len(sentence) > LONGEST_SENTENCE or len(claimed := quantities(sentence)) > MOST_NUMBERS
        if is_long or other_letters(sentence) - self._other_letters:
            return Judgement(claims=True, supported=False)
        # A part of a sentence is no heading: "# You can cancel" of "If …, you can cancel".
        if sentence.lstrip().startswith("#"):
            headings = frozenset(heading for heading in self._headings if restates(sentence, heading))
            if headings:
                return Judgement(claims=False, supported=True, headings=headings)
        claim = self._claim(claim_features(sentence), claimed, Polarity.of(sentence))
        says_something = bool(claimed) or len(claim.features - _ENDINGS) >= _FEWEST_ALONE
        if not (says_something and self._restated(sentence)):
            if not unsupported_by(claimed, [self._contact_text]) and is_courtesy(sentence, self._own_words):
                return Judgement(claims=False, supported=True, is_courtesy=True)
            # A refusal may repeat the question, numbers included: it says that the documents do not answer it.
            allowed = [self._question_text, self._contact_text]
            if not unsupported_by(claimed, allowed) and is_refusal(sentence, self._question, self._own_words):
                return Judgement(claims=False, supported=True, is_refusal=True)
        if not says_something or is_question(sentence):  # "가능합니다" to another question, or the customer's own
            return Judgement(claims=True, supported=False)
        return self._judged(sentence, claim)

    def _judged(self, sentence: str, claim: _Claim) -> Judgement:
        """Return whether the sources support a claim."""
        cited, score = self._cited(claim)
        if not self._is_near(claim, cited, score):
            return Judgement(claims=True, supported=False)
        if score < _SUPPORTED:
            return Judgement(claims=True, supported=False, verbatim=self._whole_units(cited))
        quotes = tuple(_quote(match.sentence) for match in cited)
        if self._is_echo(claim):
            verbatim = self._answers_to_echo(claim)
        elif not (verbatim := self._ambiguous(claim, cited) or self._introduced(cited)):
            origin = self._origin(claim, cited)
            if (restated := self._restated(sentence, [match.sentence for match in origin])) is not None:
                quotes, verbatim = (_quote(restated),), self._wider(restated)
                return Judgement(claims=True, supported=True, quotes=quotes, verbatim=verbatim)
            verbatim = self._whole_units(origin)
        return Judgement(claims=True, supported=bool(verbatim), quotes=quotes, verbatim=verbatim)

    def _origin(self, claim: _Claim, cited: Sequence[_Match]) -> Sequence[_Match]:
        """Return the sentences that the claim is made of, also where it denies what they affirm."""
        polarity = claim.polarity
        if polarity is None or not any(polarity.contradicts(sentence.polarity) for sentence in self._sentences):
            return cited
        return self._cited(replace(claim, polarity=None))[0]

    def unknown(self, claimed: Sequence[Quantity]) -> tuple[Quantity, ...]:
        """Return the quantities that stand in no source and are not the bank's telephone number."""
        return unsupported_by(claimed, [*self._texts, self._contact_text])

    def in_question(self, claimed: Sequence[Quantity]) -> bool:
        """Whether the question states all these quantities, so that a refusal may repeat them."""
        return not unsupported_by(claimed, [self._question_text])

    def nearest(self, query: str) -> list[tuple[float, Quote]]:
        """Return the sentences and whole tables of the sources with their scores, the nearest to the query first.

        The numbers of the query are conditions and not what is asked for, so they do not count; the rank of the passage
        does.
        """
        claim = self._claim(features(query), (), None)
        number_factor = _ASKED_NUMBER if _ASKS_FOR_A_NUMBER.search(query) else 1.0
        scored = [
            (
                self._match(claim, unit).score
                * passage_factor
                * (number_factor if unit.quantified.quantities else 1.0),
                _quote(unit),
            )
            for n, source in enumerate(self._sources, start=1)
            for passage_factor in [self._passage_factor(n)]
            for unit in source.units
        ]
        return sorted(scored, key=lambda pair: -pair[0])

    def _passage_factor(self, n: int) -> float:
        """Return the factor for a passage's rank, and for lacking a name in the question that another's title has."""
        return _RANK ** (n - 1) * (_UNNAMED if self._named_elsewhere({n}) else 1.0)

    def _claim(self, wanted: frozenset[str], claimed: Sequence[Quantity], polarity: Polarity | None) -> _Claim:
        count = len(self._sentences)
        weights = {feature: math.log(1 + count / max(1, self._frequencies[feature])) for feature in wanted}
        number_weight = math.log(1 + count) * _NUMBER
        needed: dict[Statement, frozenset[int]] = {}
        in_words: dict[tuple[Statement, ...], frozenset[int]] = {}
        for at, quantity in enumerate(claimed):
            needed |= {statement: needed.get(statement, frozenset()) | {at} for statement in quantity.needed()}
            if quantity.may_be_in_words:
                alike = tuple(quantity.needed())
                in_words[alike] = in_words.get(alike, frozenset()) | {at}
        total = sum(weights.values())
        claim = _Claim(
            wanted, tuple(claimed), polarity, weights, total, number_weight, needed, tuple(in_words.values())
        )
        return replace(claim, in_source=[claim.held_by(text) for text in self._texts])

    def _match(self, claim: _Claim, sentence: SourceSentence) -> _Match:
        words = self._weight_in(claim, [sentence])
        in_source, in_sentence = claim.in_source[sentence.n - 1], claim.held_by(sentence.quantified)
        numbers = _ELSEWHERE * len(in_source - in_sentence) + len(in_source & in_sentence)
        total = claim.total + claim.number_weight * len(claim.quantities)
        score = (words + claim.number_weight * numbers) / total if total else 0.0
        if claim.polarity is not None and claim.polarity.contradicts(sentence.polarity):
            score *= _CONTRADICTED
        return _Match(score, sentence)

    def _weight_in(self, claim: _Claim, sentences: Sequence[SourceSentence]) -> float:
        """Return the weight of the claim's features that the sentences contain together."""
        weight = 0.0
        rest = claim.features
        for factor, groups in (
            (1.0, [sentence.own for sentence in sentences]),
            (_BESIDE, [sentence.beside for sentence in sentences]),
            (_ELSEWHERE, [sentence.elsewhere for sentence in sentences]),
        ):
            for group in groups:
                contained = rest & group
                rest -= contained
                weight += factor * sum(map(claim.weights.__getitem__, contained))
        return weight

    def _matches(self, claim: _Claim) -> list[_Match]:
        """Return the best sentence of each passage, the best passage first."""
        best: dict[int, _Match] = {}
        for sentence in self._sentences:
            match = self._match(claim, sentence)
            if sentence.n not in best or match.score > best[sentence.n].score:
                best[sentence.n] = match
        return sorted(best.values(), key=lambda match: -match.score)

    def _cited(self, claim: _Claim) -> tuple[list[_Match], float]:
        """Return the sentences to cite, the best first, and their score."""
        matches = self._matches(claim)
        if not matches:
            return [], 0.0
        first = matches[0]
        cited, score = [first], first.score
        if score < _SUPPORTED and len(matches) > 1 and claim.total:
            pairs = [list(pair) for pair in combinations(matches[:3], 2)]
            shares = [self._weight_in(claim, [match.sentence for match in pair]) / claim.total for pair in pairs]
            share, pair = max(zip(shares, pairs, strict=True), key=lambda entry: entry[0])
            cited, score = (pair, share) if share >= score + _SECOND_PASSAGE else (cited, score)
        return self._with_numbers(cited, matches, claim.quantities), score

    def _is_near(self, claim: _Claim, cited: Sequence[_Match], score: float) -> bool:
        """Whether the cited passages have much of the claim, all its numbers, and speak of the same thing."""
        return (
            bool(cited)
            and score >= _NEAR
            and not unsupported_by(claim.quantities, [self._texts[match.sentence.n - 1] for match in cited])
            and not self._misplaced(claim, cited)
            and not self._is_about_another(claim, cited)
        )

    def _named_elsewhere(self, passages: Collection[int]) -> frozenset[str]:
        """Return the features of the question that other passages are titled with and these do not contain."""
        these = [source.content for n, source in enumerate(self._sources, start=1) if n in passages]
        others = [source.names for n, source in enumerate(self._sources, start=1) if n not in passages]
        return (self._question_features & frozenset().union(*others)).difference(*these)

    def _is_about_another(self, claim: _Claim, cited: Sequence[_Match]) -> bool:
        """Whether the claim is about something that only other passages are about.

        "Foreign currency deposits start at KRW 1,000,000" is nearly what a passage says of deposits in won.
        """
        return not claim.features.isdisjoint(self._named_elsewhere({match.sentence.n for match in cited}))

    def _with_numbers(
        self, cited: list[_Match], matches: Sequence[_Match], claimed: Sequence[Quantity]
    ) -> list[_Match]:
        """Cite further passages for numbers that those cited lack, where they are about the same."""
        for match in matches:
            absent = unsupported_by(claimed, [self._texts[other.sentence.n - 1] for other in cited])
            if not absent:
                break
            is_related = match.score >= _SUPPORTED / 2 and match not in cited
            if is_related and len(unsupported_by(absent, [self._texts[match.sentence.n - 1]])) < len(absent):
                cited = [*cited, match]
        return cited

    def _misplaced(self, claim: _Claim, cited: Sequence[_Match]) -> tuple[Quantity, ...]:
        """Return numbers that stand elsewhere in a passage, while the sentence that the claim repeats has others.

        "6개월 이상" is no claim of a passage that says "3개월 이상" and, in another sentence, "6개월".
        """
        sentences = self._repeated(claim, [match.sentence for match in cited])
        if not sentences or self._weight_in(claim, sentences) < _REPEATED * claim.total:
            return ()
        quoted = [quantity for sentence in sentences for quantity in sentence.quantified.quantities]
        unclaimed = [other for other in quoted if not claim.states(other)]
        heads = [self._sources[sentence.n - 1].head for sentence in sentences]
        return tuple(
            quantity
            for quantity in unsupported_by(claim.quantities, heads)
            if sum(other.supports(quantity) for other in quoted) < claim.count(quantity)
            and any(other.is_same_kind(quantity) for other in unclaimed)
        )

    def _ambiguous(self, claim: _Claim, cited: Sequence[_Match]) -> tuple[Quote, ...]:
        """Return the sentences and tables that have a claimed number among unclaimed ones of its kind.

        "디지털 OTP는 5,000원" is made of words and numbers of "디지털 OTP는 무료로, 토큰형 OTP는 5,000원에", and false.
        """
        passages = [match.sentence.n for match in cited]
        ambiguous: dict[Quote, None] = {}
        matches = [(self._match(claim, s), claim.held_by(s.quantified)) for s in self._sentences if s.n in passages]
        for at, quantity in enumerate(claim.quantities):
            holding = [match for match, held in matches if at in held]
            if not holding:  # it stands in a title or a heading
                continue
            nearest = max(holding, key=attrgetter("score")).sentence
            unit = self._unit_of(nearest)
            if unit is None or self._names_row(claim, quantity, nearest, unit):
                continue
            if any(other.is_same_kind(quantity) and not claim.states(other) for other in unit.quantified.quantities):
                ambiguous[_quote(unit)] = None
        return tuple(ambiguous)

    def _introduced(self, cited: Sequence[_Match]) -> tuple[Quote, ...]:
        """Return what the cited sentence cannot be read without: the list that it introduces, what it restricts."""
        first = cited[0].sentence
        unit = self._unit_of(first)
        if unit is None or unit.text == first.text:
            return ()
        introduces = unit.start == first.start and BLOCK_MARK.match(unit.text[len(first.text) :].lstrip())
        return (_quote(unit),) if introduces or depends_on_another(first.text) else ()

    def _is_echo(self, claim: _Claim) -> bool:
        """Whether a claim without a number only says yes or no to the question's own words.

        A passage contains these words whether it affirms or denies them, and a small model affirms most questions.
        """
        content = claim.features - _ENDINGS
        echo = sum(claim.weights[feature] for feature in content & self._question_features)
        whole = sum(claim.weights[feature] for feature in content)
        return bool(self._question_features) and not claim.quantities and echo >= _ECHOED * whole

    def _answers_to_echo(self, claim: _Claim) -> tuple[Quote, ...]:
        """Return the sentences about the claim's words, affirming or denying; none where the words are too few."""
        if len(claim.features - _ENDINGS) < _FEWEST_FEATURES:
            return ()
        return self._whole_units(self._cited(replace(claim, polarity=None))[0])

    def _restated(self, sentence: str, origin: Sequence[SourceSentence] = ()) -> SourceSentence | None:
        """Return the sentence or row of the passages that the claim says, no more and no less (`departures`)."""
        # A heading says nothing, and what a passage asks is not what it says.
        sentences = (
            other
            for other in [*origin, *self._sentences]
            if not other.text.startswith("#") and not is_question(other.text)
        )
        return next((other for other in sentences if self._restates(sentence, other)), None)

    def _wider(self, sentence: SourceSentence) -> tuple[Quote, ...]:
        """Return the list or the restricted sentence that a sentence belongs to; none for one alone, or a row read."""
        unit = self._unit_of(sentence)
        is_read = sentence.is_row and not sentence.needs_context
        is_alone = unit is None or is_read or (unit.text, unit.label) == (sentence.text, sentence.label)
        return () if unit is None or is_alone else (_quote(unit),)

    def _restates(self, sentence: str, other: SourceSentence) -> bool:
        """Whether the claim is a sentence of a passage or reads a row; what the passage is about may be named too."""
        names = self._names[other.n - 1]
        if not other.is_row:
            return restates(sentence, other.text, names)
        table = self._unit_of(other)
        head = next((line for line in table.text.splitlines() if line.startswith("|")), "") if table else ""
        return bool(head) and reads_row(sentence, other.text, head, names)

    def _whole_units(self, cited: Sequence[_Match]) -> tuple[Quote, ...]:
        """Return the cited sentences as they can be read by themselves."""
        units = [self._unit_of(match.sentence) for match in cited]
        return tuple(_quote(unit) for unit in units if unit is not None)

    def _names_row(self, claim: _Claim, quantity: Quantity, row: SourceSentence, table: SourceSentence) -> bool:
        """Whether the claim has a feature or number of only this row, and the row has one number of the kind."""
        if not row.is_row or any(
            other.is_same_kind(quantity) and not claim.states(other) for other in row.quantified.quantities
        ):
            return False
        others = [s for s in self._sentences if s.n == row.n and s is not row and table.start <= s.start < table.end]
        if claim.features & row.own - frozenset().union(*(other.own for other in others)):
            return True
        labels = [other for other in claim.quantities if other is not quantity and row.quantified.supports(other)]
        return any(not any(other.quantified.supports(label) for other in others) for label in labels)

    def _unit_of(self, sentence: SourceSentence) -> SourceSentence | None:
        """Return the unit that holds the sentence; None for a heading."""
        return self._sources[sentence.n - 1].unit_of(sentence)

    def _repeated(self, claim: _Claim, cited: Sequence[SourceSentence]) -> Sequence[SourceSentence]:
        """Return the sentence of the cited passages whose words the claim repeats; those cited where it is no other."""

        def weight(sentences: Sequence[SourceSentence]) -> float:
            return sum(claim.weights[f] for f in claim.features & frozenset().union(*(s.own for s in sentences)))

        def numbers(sentence: SourceSentence) -> int:
            return len(claim.held_by(sentence.quantified))

        passages = {sentence.n for sentence in cited}
        alike = [s for s in self._sentences if s.n in passages and claim.has_kind_of(s.quantified)]
        closest = max(alike, key=lambda sentence: (weight([sentence]), numbers(sentence)), default=None)
        if closest is None:
            return cited
        margin = _CLEARLY * claim.total
        # Nearly word for word it is repeated even where a second passage was cited for the number.
        return [closest] if weight([closest]) > min(weight(cited) + margin, claim.total - margin) else cited


def _quote(sentence: SourceSentence) -> Quote:
    return Quote(sentence.n, sentence.text, sentence.place, sentence.label, sentence.start)
