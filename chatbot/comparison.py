"""Whether the passages say what a sentence claims, by comparing words and, exactly, numbers; no model is asked.

A sentence's content features, weighted by how rare they are among the sources, are looked for in each sentence of each
passage: found there they count in full, beside it (the neighbours, a table's head, title and section) a little less,
elsewhere in the passage half. Numbers are all or nothing: each must stand in a passage that is cited for the sentence.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from pydantic import BaseModel

from chatbot.courtesy import answers, claim_features, is_courtesy, is_refusal
from chatbot.numbers import Evidence, Quantity, missing, quantities
from chatbot.polarity import Polarity
from chatbot.sentences import passage_sentences
from chatbot.words import features
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
    number: float = 2.0
    """Weight of a number against the rarest word, when choosing which sentence to quote."""


@dataclass(frozen=True, slots=True)
class Quote:
    """A verbatim sentence of source `n` (counted from 1)."""

    n: int
    text: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """What was found: `claims` is False of a greeting or a refusal, `missing` are numbers no cited passage holds.

    `waits` is true of a yes or no without a reason: it means nothing until the next sentence.
    """

    claims: bool
    supported: bool
    quotes: tuple[Quote, ...] = ()
    missing: tuple[Quantity, ...] = ()
    waits: bool = False


@dataclass(frozen=True, slots=True)
class _Window:
    n: int
    text: str
    own: frozenset[str]
    beside: frozenset[str]
    elsewhere: frozenset[str]
    evidence: Evidence
    polarity: Polarity


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
        self._evidence = [Evidence.read(_said(passage)) for passage in sources]
        self._windows = [window for n, passage in enumerate(sources, start=1) for window in _windows(n, passage)]
        self._seen = Counter(feature for window in self._windows for feature in window.own)
        self._question = question
        self._contact = contact
        self._echo = [Evidence.read(question), Evidence.read(contact)]

    def judge(self, sentence: str) -> Judgement:
        claimed = quantities(sentence)
        if not missing(claimed, self._echo[1:]) and is_courtesy(sentence):
            return Judgement(claims=False, supported=True, waits=answers(sentence))
        # A refusal may repeat what was asked, numbers included: it says that the documents do not say it.
        if not missing(claimed, self._echo) and is_refusal(sentence, self._question):
            return Judgement(claims=False, supported=True)
        wanted = claim_features(sentence)
        matches = self._matches(wanted, claimed, Polarity.of(sentence))
        cited, score = self._cited(wanted, matches)
        cited = self._with_numbers(cited, matches, claimed)
        absent = missing(claimed, [self._evidence[match.window.n - 1] for match in cited])
        enough = bool(cited) and score >= self._settings.supported
        quotes = tuple(Quote(match.window.n, match.window.text) for match in cited)
        return Judgement(claims=True, supported=enough and not absent, quotes=quotes if enough else (), missing=absent)

    def unknown(self, claimed: Sequence[Quantity]) -> tuple[Quantity, ...]:
        """Return the quantities that no source holds (and that are not the bank's own telephone number)."""
        return missing(claimed, [*self._evidence, self._echo[1]])

    def asked(self, claimed: Sequence[Quantity]) -> bool:
        """Whether the question itself holds all these quantities, so that a refusal may repeat them."""
        return not missing(claimed, self._echo[:1])

    def nearest(self, text: str) -> list[tuple[float, Quote]]:
        """Return every sentence of the sources, the one most like `text` first."""
        wanted, claimed = features(text), quantities(text)
        scored = [(self._score(wanted, claimed, window), window) for window in self._windows]
        scored.sort(key=lambda pair: -pair[0])
        return [(score, Quote(window.n, window.text)) for score, window in scored]

    def _weight(self, feature: str) -> float:
        return math.log(1 + len(self._windows) / max(1, self._seen[feature]))

    def _score(self, wanted: frozenset[str], claimed: Sequence[Quantity], window: _Window) -> float:
        settings = self._settings
        total = found = 0.0
        for feature in wanted:
            weight = self._weight(feature)
            total += weight
            if feature in window.own:
                found += weight
            elif feature in window.beside:
                found += weight * settings.beside
            elif feature in window.elsewhere:
                found += weight * settings.elsewhere
        rarest = math.log(1 + len(self._windows)) * settings.number
        for quantity in claimed:
            total += rarest
            if window.evidence.supports(quantity):
                found += rarest
            elif self._evidence[window.n - 1].supports(quantity):
                found += rarest * settings.elsewhere
        return found / total if total else 0.0

    def _matches(self, wanted: frozenset[str], claimed: Sequence[Quantity], says: Polarity) -> list[_Match]:
        """Return the best sentence of each passage, the best passage first."""
        best: dict[int, _Match] = {}
        for window in self._windows:
            score = self._score(wanted, claimed, window)
            if says.contradicts(window.polarity):
                score *= self._settings.contradicted
            if window.n not in best or score > best[window.n].score:
                best[window.n] = _Match(score, window)
        return sorted(best.values(), key=lambda match: -match.score)

    def _cited(self, wanted: frozenset[str], matches: Sequence[_Match]) -> tuple[list[_Match], float]:
        if not matches:
            return [], 0.0
        first = matches[0]
        if first.score >= self._settings.supported or len(matches) == 1:
            return [first], first.score
        scored = [(self._together(wanted, pair), list(pair)) for pair in combinations(matches[:3], 2)]
        score, pair = max(scored, key=lambda entry: entry[0])
        return (pair, score) if score >= first.score + self._settings.second_passage else ([first], first.score)

    def _together(self, wanted: frozenset[str], pair: Sequence[_Match]) -> float:
        total = sum(self._weight(feature) for feature in wanted)
        held = sum(self._weight(f) * max(self._held(f, match.window) for match in pair) for f in wanted)
        return held / total if total else 0.0

    def _held(self, feature: str, window: _Window) -> float:
        if feature in window.own:
            return 1.0
        if feature in window.beside:
            return self._settings.beside
        return self._settings.elsewhere if feature in window.elsewhere else 0.0

    def _with_numbers(
        self, cited: list[_Match], matches: Sequence[_Match], claimed: Sequence[Quantity]
    ) -> list[_Match]:
        """Cite further passages for numbers that those cited do not hold, where they are about the same."""
        for match in matches:
            absent = missing(claimed, [self._evidence[one.window.n - 1] for one in cited])
            if not absent:
                break
            related = match.score >= self._settings.supported / 2 and match not in cited
            if related and len(missing(absent, [self._evidence[match.window.n - 1]])) < len(absent):
                cited = [*cited, match]
        return cited


def _said(passage: Passage) -> str:
    """Return everything a customer can read of a passage, its heading lines first."""
    since = passage.effective_from.isoformat() if passage.effective_from else ""
    return "\n".join(part for part in (passage.title, passage.section, since, passage.text) if part)


def _windows(n: int, passage: Passage) -> list[_Window]:
    spans = passage_sentences(passage.text)
    own = [features(span.text) for span in spans]
    context = features(" ".join((passage.title, passage.section, passage.product or "")))
    everything = frozenset().union(context, *own)
    evidence = Evidence.read(passage.text)
    windows: list[_Window] = []
    head = -1
    for at, span in enumerate(spans):
        row = span.text.startswith("|")
        head = (head if head >= 0 else at) if row else -1
        near = own[max(0, at - 1)] | own[min(len(own) - 1, at + 1)] | (own[head] if row else frozenset())
        inside = [q for q in evidence.quantities if span.start <= q.start < span.start + len(span.text)]
        said = Evidence(span.text, tuple(inside))
        windows.append(_Window(n, span.text, own[at], near | context, everything, said, Polarity.of(span.text)))
    return windows
