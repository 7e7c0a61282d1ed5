"""Whether the passages say what a sentence claims, by comparing words and, exactly, numbers; no model is asked.

A sentence's content features, weighted by how rare they are among the sources, are looked for in each sentence of each
passage: found there they count in full, beside it (the neighbours, a table's head, title and section) a little less,
elsewhere in the passage half. Numbers are all or nothing: each must stand in a passage that is cited for the sentence.
"""

import math
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import combinations, groupby
from typing import Final

from pydantic import BaseModel

from chatbot.grounding.boilerplate import answers, claim_features, is_courtesy, is_refusal
from chatbot.grounding.negation import Polarity
from chatbot.grounding.numbers import QuantifiedText, Quantity, quantities, unsupported_by
from chatbot.grounding.sentences import passage_sentences
from chatbot.grounding.stems import features
from knowledge.passage import Passage


class ComparisonSettings(BaseModel, frozen=True):
    """How alike is alike enough; measured on answers against their own and against the nearest other passages."""

    supported: float = 0.55
    """Share of a sentence's weighted content that its passages must hold."""
    second_passage: float = 0.12
    """What a second passage must add before it is cited too."""
    beside: float = 0.8
    elsewhere: float = 0.5
    contradicted: float = 0.6
    """Factor on a sentence that says no where the claim says yes, or the other way round."""
    repeated: float = 0.7
    """Share of the content from which on a sentence counts as said again, so that its numbers must be the same."""
    rank: float = 0.8
    """What a sentence of the next passage is worth when passages are quoted for want of a model."""
    asked_number: float = 1.4
    """What a sentence with a number is worth more when the question asks how much, how long or when."""
    echoed: float = 0.8
    """Share of a claim's content that stands in the question, from which on it says no more than yes or no."""
    clearly: float = 0.15
    """Share of the content by which another sentence must be nearer before it counts as the one repeated."""
    number: float = 2.0
    """Weight of a number against the rarest word, when choosing which sentence to quote."""
    unnamed: float = 0.5
    """Factor, when choosing what to quote, on a passage without a name in the question that another is titled with."""


_ENDINGS: Final = frozenset({"니다", "습니", "합니", "됩니", "입니", "있습", "없습"})
"""Halves of Korean endings: in every sentence, and about nothing."""
_FEWEST_FEATURES: Final = 3
_LONGEST_TABLE: Final = 1500
_ASKS_FOR_A_NUMBER: Final = re.compile(
    r"얼마|몇|언제|며칠|금리|이율|한도|수수료|\bhow (?:much|many|long|often|old|soon)\b|\bwhen\b"
    r"|\brates?\b|\bfees?\b|\blimits?\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Quote:
    """A verbatim sentence of source `n` (counted from 1)."""

    n: int
    text: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """What was found: `claims` is False of a greeting or a refusal, `missing` are numbers no cited passage holds.

    `verbatim` are the sentences or tables whose own words should be shown instead: they hold further numbers of a kind
    that is claimed, and comparison cannot tell which of them is asked for, or whether it is yes or no. `waits` is true
    of a yes or no without a reason: it means nothing until the next sentence.
    """

    claims: bool
    supported: bool
    quotes: tuple[Quote, ...] = ()
    verbatim: tuple[Quote, ...] = ()
    missing: tuple[Quantity, ...] = ()
    waits: bool = False


@dataclass(frozen=True, slots=True)
class _Window:
    n: int
    text: str
    own: frozenset[str]
    beside: frozenset[str]
    elsewhere: frozenset[str]
    evidence: QuantifiedText
    polarity: Polarity


@dataclass(frozen=True, slots=True)
class _Claim:
    """A sentence to be judged: its content with weights, its numbers, and which source holds which number anywhere."""

    wanted: frozenset[str]
    claimed: tuple[Quantity, ...]
    says: Polarity | None
    weights: dict[str, float]
    total: float
    rarest: float
    anywhere: list[tuple[bool, ...]]

    def times(self, quantity: Quantity) -> int:
        """Return how often the claim states this value."""
        return sum(other.readings == quantity.readings and other.numbers == quantity.numbers for other in self.claimed)

    def states(self, quantity: Quantity) -> bool:
        """Whether a source's quantity is among the claimed ones."""
        return any(quantity.supports(claimed) for claimed in self.claimed)

    def is_counted_like(self, evidence: QuantifiedText) -> bool:
        """Whether the evidence holds numbers of the claim's kinds."""
        return any(own.is_counted_like(quantity) for own in evidence.quantities for quantity in self.claimed)


@dataclass(frozen=True, slots=True)
class _Match:
    score: float
    window: _Window


class Comparison:
    """The sources of one answer, read once; `judge` is asked for each of its sentences."""

    def __init__(
        self,
        sources: Sequence[Passage],
        *,
        question: str = "",
        contact: str = "",
        settings: ComparisonSettings | None = None,
    ) -> None:
        self._settings = settings or ComparisonSettings()
        self._read = read = [_read(passage) for passage in sources]
        self._heads = [one.head for one in read]
        self._evidence = [one.whole for one in read]
        self._windows = [replace(window, n=n) for n, one in enumerate(read, start=1) for window in one.windows]
        self._seen = Counter(feature for window in self._windows for feature in window.own)
        self._question = question
        self._asked = features(question)
        self._contact = contact
        self._echo = [QuantifiedText.read(question), QuantifiedText.read(contact)]

    def judge(self, sentence: str) -> Judgement:
        claimed = quantities(sentence)
        if not unsupported_by(claimed, self._echo[1:]) and is_courtesy(sentence):
            return Judgement(claims=False, supported=True, waits=answers(sentence))
        # A refusal may repeat what was asked, numbers included: it says that the documents do not say it.
        if not unsupported_by(claimed, self._echo) and is_refusal(sentence, self._question):
            return Judgement(claims=False, supported=True)
        if sentence.rstrip().endswith(("?", "？")):  # the customer's own question, said again, states nothing
            return Judgement(claims=True, supported=False)
        claim = self._claim(claim_features(sentence), claimed, Polarity.of(sentence))
        cited, score = self._cited(claim)
        absent = unsupported_by(claimed, [self._evidence[match.window.n - 1] for match in cited])
        absent = absent or self._misplaced(claim, cited)
        enough = bool(cited) and score >= self._settings.supported and not self._of_another(claim, cited)
        if not enough or absent:
            return Judgement(claims=True, supported=False, missing=absent)
        quotes = tuple(Quote(match.window.n, match.window.text) for match in cited)
        if self._echoes(claim):
            verbatim = self._said_instead(claim)
            return Judgement(claims=True, supported=bool(verbatim), quotes=quotes, verbatim=verbatim)
        verbatim = self._ambiguous(claim, cited)
        return Judgement(claims=True, supported=True, quotes=quotes, verbatim=verbatim)

    def unknown(self, claimed: Sequence[Quantity]) -> tuple[Quantity, ...]:
        """Return the quantities that no source holds (and that are not the bank's own telephone number)."""
        return unsupported_by(claimed, [*self._evidence, self._echo[1]])

    def asked(self, claimed: Sequence[Quantity]) -> bool:
        """Whether the question itself holds all these quantities, so that a refusal may repeat them."""
        return not unsupported_by(claimed, self._echo[:1])

    def nearest(self, question: str, attempt: str = "") -> list[tuple[float, Quote]]:
        """Return the sentences and whole tables of the sources, the one most about the question first.

        The question's own numbers are conditions, not what is asked for, so they do not count; those of an answer that
        the checks withheld (`attempt`) do, and so does the order in which retrieval found the passages.
        """
        asked = quantities(question)
        tried = [one for one in quantities(attempt) if not any(own.supports(one) for own in asked)]
        claim = self._claim(features(question), tried, None)
        bonus = self._settings.asked_number if _ASKS_FOR_A_NUMBER.search(question) else 1.0
        scored = [
            (
                self._match(claim, replace(unit, n=n)).score * worth * (bonus if unit.evidence.quantities else 1.0),
                Quote(n, unit.text),
            )
            for n, one in enumerate(self._read, start=1)
            for worth in [self._worth(n)]
            for unit in one.units
        ]
        return sorted(scored, key=lambda pair: -pair[0])

    def _worth(self, n: int) -> float:
        """Return what a passage's sentences are worth by its place, and by whether it is about what is asked for."""
        return self._settings.rank ** (n - 1) * (self._settings.unnamed if self._names_elsewhere({n}) else 1.0)

    def _claim(self, wanted: frozenset[str], claimed: Sequence[Quantity], says: Polarity | None) -> _Claim:
        count = len(self._windows)
        weights = {feature: math.log(1 + count / max(1, self._seen[feature])) for feature in wanted}
        anywhere = [tuple(evidence.supports(quantity) for quantity in claimed) for evidence in self._evidence]
        rarest = math.log(1 + count) * self._settings.number
        return _Claim(wanted, tuple(claimed), says, weights, sum(weights.values()), rarest, anywhere)

    def _match(self, claim: _Claim, window: _Window) -> _Match:
        words = self._words_held(claim, [window])
        numbers = 0.0
        for quantity, anywhere in zip(claim.claimed, claim.anywhere[window.n - 1], strict=True):
            if anywhere:
                numbers += 1.0 if window.evidence.supports(quantity) else self._settings.elsewhere
        total = claim.total + claim.rarest * len(claim.claimed)
        score = (words + claim.rarest * numbers) / total if total else 0.0
        if claim.says is not None and claim.says.contradicts(window.polarity):
            score *= self._settings.contradicted
        return _Match(score, window)

    def _words_held(self, claim: _Claim, windows: Sequence[_Window]) -> float:
        """Return the weight of the claim's content that the windows hold together."""
        held = 0.0
        rest = claim.wanted
        for share, where in (
            (1.0, [window.own for window in windows]),
            (self._settings.beside, [window.beside for window in windows]),
            (self._settings.elsewhere, [window.elsewhere for window in windows]),
        ):
            for features_there in where:
                found = rest & features_there
                rest -= found
                held += share * sum(map(claim.weights.__getitem__, found))
        return held

    def _matches(self, claim: _Claim) -> list[_Match]:
        """Return the best sentence of each passage, the best passage first."""
        best: dict[int, _Match] = {}
        for window in self._windows:
            match = self._match(claim, window)
            if window.n not in best or match.score > best[window.n].score:
                best[window.n] = match
        return sorted(best.values(), key=lambda match: -match.score)

    def _cited(self, claim: _Claim) -> tuple[list[_Match], float]:
        """Return what to cite, most alike first, and how alike it is."""
        matches = self._matches(claim)
        if not matches:
            return [], 0.0
        first = matches[0]
        cited, score = [first], first.score
        if score < self._settings.supported and len(matches) > 1 and claim.total:
            pairs = [list(pair) for pair in combinations(matches[:3], 2)]
            shares = [self._words_held(claim, [match.window for match in pair]) / claim.total for pair in pairs]
            share, pair = max(zip(shares, pairs, strict=True), key=lambda entry: entry[0])
            cited, score = (pair, share) if share >= score + self._settings.second_passage else (cited, score)
        return self._with_numbers(cited, matches, claim.claimed), score

    def _names_elsewhere(self, passages: Collection[int]) -> frozenset[str]:
        """Return what the question says, only other passages are titled with, and these say nowhere."""
        there = [one for n, one in enumerate(self._read, start=1) if n in passages]
        others = [one.names for n, one in enumerate(self._read, start=1) if n not in passages]
        return (self._asked & frozenset().union(*others)).difference(*(one.content for one in there))

    def _of_another(self, claim: _Claim, cited: Sequence[_Match]) -> bool:
        """Whether the claim gives what its passages say to something that only other passages are about.

        "Foreign currency deposits start at KRW 1,000,000" is nearly what a passage says of deposits in won.
        """
        return not claim.wanted.isdisjoint(self._names_elsewhere({match.window.n for match in cited}))

    def _with_numbers(
        self, cited: list[_Match], matches: Sequence[_Match], claimed: Sequence[Quantity]
    ) -> list[_Match]:
        """Cite further passages for numbers that those cited do not hold, where they are about the same."""
        for match in matches:
            absent = unsupported_by(claimed, [self._evidence[one.window.n - 1] for one in cited])
            if not absent:
                break
            related = match.score >= self._settings.supported / 2 and match not in cited
            if related and len(unsupported_by(absent, [self._evidence[match.window.n - 1]])) < len(absent):
                cited = [*cited, match]
        return cited

    def _misplaced(self, claim: _Claim, cited: Sequence[_Match]) -> tuple[Quantity, ...]:
        """Return numbers that stand elsewhere in a passage while the sentence the claim repeats has another there.

        "6개월 이상" is no claim of a passage that says "3개월 이상" and, in another sentence, "6개월".
        """
        windows = self._repeated(claim, [match.window for match in cited])
        if not windows or self._words_held(claim, windows) < self._settings.repeated * claim.total:
            return ()
        quoted = [quantity for window in windows for quantity in window.evidence.quantities]
        unclaimed = [own for own in quoted if not claim.states(own)]
        heads = [self._heads[window.n - 1] for window in windows]
        return tuple(
            quantity
            for quantity in unsupported_by(claim.claimed, heads)
            if sum(own.supports(quantity) for own in quoted) < claim.times(quantity)
            and any(own.is_counted_like(quantity) for own in unclaimed)
        )

    def _ambiguous(self, claim: _Claim, cited: Sequence[_Match]) -> tuple[Quote, ...]:
        """Return the sentences and tables that hold a claimed number among others of its kind that are not claimed.

        "디지털 OTP는 5,000원" is made of words and numbers of "디지털 OTP는 무료로, 토큰형 OTP는 5,000원에", and false.
        """
        passages = [match.window.n for match in cited]
        chosen: dict[Quote, None] = {}
        for quantity in claim.claimed:
            holding = [w for w in self._windows if w.n in passages and w.evidence.supports(quantity)]
            if not holding:  # it stands in a title or a heading
                continue
            nearest = max(holding, key=lambda window: self._match(claim, window).score)
            unit = self._unit_of(nearest)
            if unit is None or self._names_the_row(claim, quantity, nearest, unit):
                continue
            if any(own.is_counted_like(quantity) and not claim.states(own) for own in unit.evidence.quantities):
                chosen[Quote(nearest.n, unit.text)] = None
        return tuple(chosen)

    def _echoes(self, claim: _Claim) -> bool:
        """Whether a claim without a number only says yes or no to the question's own words.

        Those words are found whether the passage affirms or denies them, and a small model affirms most of what it is
        asked.
        """
        content = claim.wanted - _ENDINGS
        echo = sum(claim.weights[feature] for feature in content & self._asked)
        whole = sum(claim.weights[feature] for feature in content)
        return bool(self._asked) and not claim.claimed and echo >= self._settings.echoed * whole

    def _said_instead(self, claim: _Claim) -> tuple[Quote, ...]:
        """Return what the passages say of the claim's words, yes or no; nothing where these are too few to find it."""
        if len(claim.wanted - _ENDINGS) < _FEWEST_FEATURES:
            return ()
        cited, _ = self._cited(replace(claim, says=None))
        units = [(match.window.n, self._unit_of(match.window)) for match in cited]
        return tuple(Quote(n, unit.text) for n, unit in units if unit is not None)

    def _names_the_row(self, claim: _Claim, quantity: Quantity, row: _Window, table: _Window) -> bool:
        """Whether the claim says what only this row of the table says, and the row has no other number of the kind."""
        if not row.text.startswith("|") or any(
            own.is_counted_like(quantity) and not claim.states(own) for own in row.evidence.quantities
        ):
            return False
        others = [w for w in self._windows if w.n == row.n and w is not row and w.text in table.text]
        if claim.wanted & row.own - frozenset().union(*(other.own for other in others)):
            return True
        labels = [one for one in claim.claimed if one is not quantity and row.evidence.supports(one)]
        return any(not any(other.evidence.supports(label) for other in others) for label in labels)

    def _unit_of(self, window: _Window) -> _Window | None:
        """Return the sentence or the table that a sentence or a row belongs to; nothing for a heading."""
        return next((unit for unit in self._read[window.n - 1].units if window.text in unit.text), None)

    def _repeated(self, claim: _Claim, cited: Sequence[_Window]) -> Sequence[_Window]:
        """Return the sentence of the cited passages whose words the claim repeats, if that is not the one cited."""

        def own(windows: Sequence[_Window]) -> float:
            return sum(claim.weights[f] for f in claim.wanted & frozenset().union(*(w.own for w in windows)))

        def numbers(window: _Window) -> int:
            return sum(window.evidence.supports(quantity) for quantity in claim.claimed)

        passages = {window.n for window in cited}
        alike = [window for window in self._windows if window.n in passages and claim.is_counted_like(window.evidence)]
        closest = max(alike, key=lambda window: (own([window]), numbers(window)), default=None)
        if closest is None:
            return cited
        clearly = self._settings.clearly * claim.total
        # Nearly word for word it is repeated even where a second passage was cited for the number.
        return [closest] if own([closest]) > min(own(cited) + clearly, claim.total - clearly) else cited


def _head(passage: Passage) -> str:
    """Return what a customer can read of a passage beside its text."""
    since = passage.effective_from.isoformat() if passage.effective_from else ""
    return "\n".join(part for part in (passage.title, passage.section, since) if part)


@dataclass(frozen=True, slots=True)
class _Read:
    head: QuantifiedText
    whole: QuantifiedText
    names: frozenset[str]
    content: frozenset[str]
    windows: tuple[_Window, ...]
    units: tuple[_Window, ...]


@lru_cache(maxsize=1024)
def _read(passage: Passage) -> _Read:
    """Read a passage; the same few answer most questions, so what was read is kept (some 20 KiB each)."""
    head = _head(passage)
    names = features(" ".join((passage.title, passage.section, passage.product or "")))
    windows = _windows(passage, names)
    units = tuple(_units(passage.text, windows))
    content = names.union(*(window.own for window in windows))
    return _Read(
        QuantifiedText.read(head), QuantifiedText.read(f"{head}\n{passage.text}"), names, content, tuple(windows), units
    )


def _windows(passage: Passage, names: frozenset[str]) -> list[_Window]:
    spans = passage_sentences(passage.text)
    own = [features(span.text) for span in spans]
    everything = names.union(*own)
    evidence = QuantifiedText.read(passage.text)
    windows: list[_Window] = []
    head = -1
    for at, span in enumerate(spans):
        row = span.text.startswith("|")
        head = (head if head >= 0 else at) if row else -1
        near = own[max(0, at - 1)] | own[min(len(own) - 1, at + 1)] | (own[head] if row else frozenset())
        inside = [q for q in evidence.quantities if span.start <= q.start < span.start + len(span.text)]
        said = QuantifiedText(span.text, tuple(inside))
        windows.append(_Window(0, span.text, own[at], near | names, everything, said, Polarity.of(span.text)))
    return windows


def _units(text: str, windows: Sequence[_Window]) -> Iterator[_Window]:
    """Yield what can be read by itself: sentences, and the rows of a table together; a heading alone says nothing."""
    at = 0
    for table, group in groupby(windows, key=lambda window: window.text.startswith("|")):
        rows = list(group)
        start = text.index(rows[0].text, at)
        for row in rows:
            at = text.index(row.text, at) + len(row.text)
        if table and at - start <= _LONGEST_TABLE:
            own = frozenset().union(*(row.own for row in rows))
            said = tuple(quantity for row in rows for quantity in row.evidence.quantities)
            yield replace(rows[0], text=text[start:at], own=own, evidence=QuantifiedText(text[start:at], said))
        else:
            yield from (row for row in rows if not row.text.startswith("#"))
