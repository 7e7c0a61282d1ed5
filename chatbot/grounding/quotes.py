"""Which sentences of the passages are nearest to a question, and the answer that consists of them.

Nearness is that of the words (`Comparison.nearest`) and that of the embedder, each as a z-score over the candidates: on
questions of three banks the right sentence is among the first three for 90, 83 and 90 of 100, by words alone for 89, 74
and 88 (docs/decisions/0029).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from statistics import fmean, pstdev
from typing import Final

import msgspec

from chatbot.events import Citation, Event, Token
from chatbot.grounding.asked import asks_for_amount, states_amount
from chatbot.grounding.evidence import Comparison, Quote
from chatbot.grounding.sources import read_source
from knowledge.passage import Language, Passage, language_of

_INTRODUCTION: Final[dict[Language, str]] = {
    "ko": "관련 문서의 내용을 그대로 안내해 드립니다.",
    "en": "Here is what our documents say, word for word.",
}
_MOST_CANDIDATES: Final = 8
_MOST_QUOTES: Final = 3
_SHORT_PASSAGE: Final = 500
"""Characters up to which a passage is quoted whole."""
# Where the words alone decide: the share of the best sentence's score that a quote must have.
_NEAR_ENOUGH: Final = 0.6
_SHORTEST_QUOTE: Final = 8


@dataclass(frozen=True, slots=True)
class QuotedAnswer:
    """An answer that consists of verbatim sentences of the passages, so it is grounded by construction."""

    citations: tuple[Citation, ...]
    text: str = ""

    @classmethod
    def of(cls, introduction: str, citations: Iterable[Citation]) -> "QuotedAnswer":
        """Return the answer that quotes these citations, in this order."""
        text, placed = introduction, list[Citation]()
        for citation in citations:
            text += "\n\n" if citation.quote.startswith(("|", "-", "*")) else "\n\n> "
            end = len(text) + len(citation.quote)
            placed.append(msgspec.structs.replace(citation, start=len(text), end=end))
            text += citation.quote
        return cls(tuple(placed), text if placed else "")

    @property
    def events(self) -> list[Event]:
        """The events of the answer; none where nothing is quoted."""
        return [Token(text=self.text), *self.citations] if self.text else []

    def each(self) -> "tuple[QuotedAnswer, ...]":
        """Return, for each of its quotes, the answer that quotes it alone."""
        introduction = self.text.partition("\n\n")[0]
        return tuple(QuotedAnswer.of(introduction, [citation]) for citation in self.citations)

    def most_probable(self, probabilities: Sequence[float], certainty: float) -> "QuotedAnswer":
        """Return the most probable quote alone, or all quotes where the model is not more certain than `certainty`.

        Certainty is 0 where all quotes are equally probable, however many there are, and 1 where one has all.
        """
        probability, alone = max(zip(probabilities, self.each(), strict=False), key=itemgetter(0), default=(0.0, self))
        even = 1 / max(1, len(probabilities))
        return alone if probability - even > certainty * (1 - even) else self

    def excerpts(self, sources: Sequence[Passage]) -> tuple[Passage, ...]:
        """Return the passages that it quotes, each cut to its quote."""
        return tuple(replace(sources[citation.n - 1], text=citation.quote) for citation in self.citations)


NO_QUOTES: Final = QuotedAnswer(())


@dataclass(frozen=True, slots=True)
class QuoteCandidates:
    """The sentences and whole tables of the passages that share most with a question's words, with their scores."""

    sources: tuple[Passage, ...]
    scored: tuple[tuple[float, Quote], ...]

    @classmethod
    def of(cls, question: str, sources: Sequence[Passage], *, query: str = "") -> "QuoteCandidates":
        """Return the candidates, by the words of the question, or of a `query` in its place."""
        nearest: dict[str, tuple[float, Quote]] = {}
        for score, quote in Comparison(sources, question=question).nearest(query or question):
            if len(nearest) == _MOST_CANDIDATES:
                break
            if len(quote.text) >= _SHORTEST_QUOTE:
                nearest.setdefault(quote.text, (score, quote))
        return cls(tuple(sources), tuple(nearest.values()))

    @property
    def excerpts(self) -> tuple[Passage, ...]:
        """The passage of each candidate, cut to it."""
        return tuple(replace(self.sources[quote.n - 1], text=quote.text) for _, quote in self.scored)

    def ranked(self, similarities: Sequence[float] = ()) -> tuple[Quote, ...]:
        """Return the candidates, the nearest to the question first; by words alone without the embedder's cosines."""
        words = [score for score, _ in self.scored]
        if not similarities:
            best = max(words, default=0.0)
            return tuple(quote for score, quote in self.scored if score and score >= best * _NEAR_ENOUGH)
        both = [a + b for a, b in zip(_standardised(words), _standardised(similarities), strict=True)]
        order = sorted(range(len(both)), key=lambda i: -both[i])
        return tuple(self.scored[i][1] for i in order)


def _standardised(scores: Sequence[float]) -> list[float]:
    """Return the z-scores; 0 for each where they do not differ."""
    mean, spread = fmean(scores), pstdev(scores)
    return [(score - mean) / spread if spread else 0.0 for score in scores]


def quoted_answer(
    question: str, ranked: Sequence[Quote], sources: Sequence[Passage], *, language: Language | None = None
) -> QuotedAnswer:
    """Return the answer of the first sentences; none where an amount is asked for and they state none.

    It is introduced in the question's language where none is given.
    """
    chosen = _shown(ranked, sources)
    if asks_for_amount(question) and not any(states_amount(quote.text) for quote in chosen):
        chosen = []
    introduction = _INTRODUCTION[language or language_of(question)]
    return QuotedAnswer.of(introduction, [citation_of(sources, quote, 0, 0) for quote in chosen])


def _shown(ranked: Sequence[Quote], sources: Sequence[Passage]) -> list[Quote]:
    """Return the first sentences, or in place of those of the nearest one's passage the whole of it, where it is short.

    An entry of a FAQ or a section is an answer with its steps and conditions; three lines of it are not.
    """
    chosen = list(ranked[:_MOST_QUOTES])
    if not chosen:
        return []
    nearest = chosen[0].n
    passage = sources[nearest - 1]
    units = read_source(passage).units
    whole = passage.text[units[0].start : units[-1].start + len(units[-1].text)]  # no heading before it
    if len(whole) > _SHORT_PASSAGE:
        return chosen
    return [Quote(nearest, whole), *(quote for quote in chosen if quote.n != nearest)]


def nearest_quote(question: str, passage: Passage, *, query: str) -> str:
    """Return the sentence or table row of a passage that is nearest to the question; "" where no word is shared.

    `query` is what was searched for: the question with the one before it and synonyms.
    """
    candidates = QuoteCandidates.of(question, [passage], query=query).scored
    return next((quote.text for score, quote in candidates if score), "")


def citation_of(sources: Sequence[Passage], quote: Quote, start: int, end: int) -> Citation:
    """Return the citation of a quote that supports the characters `start` to `end` of the answer."""
    passage = sources[quote.n - 1]
    return Citation(
        n=quote.n,
        start=start,
        end=end,
        document_id=passage.document_id,
        version=passage.version,
        page=passage.page,
        quote=quote.text,
    )
