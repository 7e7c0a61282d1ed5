"""Search passages for a question, rewritten or combined with earlier questions, within the caller's access."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
from anyio import to_thread
from opentelemetry import trace

from chatbot.answerability import nearness
from chatbot.errors import IndexUnavailable
from chatbot.retrieval.reranking import Reranker
from chatbot.retrieval.standalone import ChoiceResolver
from knowledge.access import Access
from knowledge.bank import Banks
from knowledge.glossary import Glossary
from knowledge.index import Index
from knowledge.index import IndexUnavailable as PassageIndexUnavailable
from knowledge.passage import Hit
from knowledge.query_term_coverage import Coverage

tracer = trace.get_tracer(__name__)

PASSAGES = 5
"""The maximum number of passages of an answer."""


class SearchResult(msgspec.Struct, frozen=True, kw_only=True):
    """The passages for a question, best first, as of `as_of` in Unix seconds; `query` selects the units to quote.

    A turn's checkpoint stores it, so replicas of two releases read the field names.
    """

    hits: tuple[Hit, ...]
    as_of: float
    query: str = msgspec.field(name="wording", default="")
    collection: str = ""
    """The searched collection of the index; empty without a search."""
    standalone: str = ""
    """The question rewritten to be understood without earlier messages; empty if it was not rewritten."""


MOST_EARLIER_CHARACTERS = 200
"""The maximum number of characters of earlier questions in a search."""
SELF_CONTAINED = 4.0
"""From this value of `match_of` on, a question is searched without the earlier ones (docs/decisions/0025)."""


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """The words of a search: the question, earlier questions (which weigh less), and synonyms of their words."""

    question: str
    earlier: tuple[str, ...]
    synonyms: str

    @classmethod
    def of(cls, question: str, earlier: Sequence[str], glossary: Glossary) -> "SearchQuery":
        """Return the query for a question with the last of the `earlier` questions (oldest first) that fit.

        A question longer than the limit contributes only its end, which usually holds the actual question.
        """
        newest_first: list[str] = []
        characters_left = MOST_EARLIER_CHARACTERS
        for text in reversed(earlier):
            if len(text) > characters_left:
                end = _end_of(text, characters_left)
                if end and len(text) > MOST_EARLIER_CHARACTERS:
                    newest_first.append(end)
                break
            newest_first.append(text)
            characters_left -= len(text)
        texts = tuple(reversed(newest_first))
        return cls(question, texts, glossary.synonyms(" ".join((*texts, question))))

    @property
    def earlier_text(self) -> str:
        """The earlier questions as one text."""
        return " ".join(self.earlier)

    @property
    def text(self) -> str:
        """All words of the query."""
        return " ".join((*self.earlier, self.question, self.synonyms))


def _end_of(text: str, most: int) -> str:
    """Return the last whole words of a text, at most `most` characters."""
    end = text[len(text) - most :]
    return end.partition(" ")[2] or end


def match_of(hits: Sequence[Hit]) -> float:
    """Return how well hits match their question: the most shared terms plus the nearest meaning; -inf without hits."""
    if not hits:
        return -math.inf
    return max(hit.terms for hit in hits) + 2 * nearness(max(hit.dense for hit in hits))


def quoting_query(question: str, previous: Sequence[str], glossary: Glossary) -> str:
    """Return the words that select the quoted units; `previous` has the question before this one, or nothing."""
    return SearchQuery.of(question, previous, glossary).text


class Retrieval:
    """Searches the index for a question in its conversation."""

    def __init__(
        self, index: Index, banks: Banks, *, passages: int = PASSAGES, reranker: Reranker | None = None
    ) -> None:
        self._reranker = reranker
        self._index = index
        self._banks = banks
        self._coverage = banks.by_tenant(lambda bank: Coverage(index.terms, bank.synonyms, bank.own_names))
        self._choices = ChoiceResolver(index.terms)
        self._passages = passages

    async def search(self, question: str, *, earlier: Sequence[str], access: Access) -> SearchResult:
        """Return the passages for the question that `access` permits; `earlier` are questions, oldest first.

        If the question's own words find a passage, earlier questions are not searched: the subject may have changed.

        Raises:
            IndexUnavailable: the index cannot be searched.
        """
        with tracer.start_as_current_span("retrieve") as span:
            glossary = self._banks.of(access.tenant).synonyms
            standalone = await to_thread.run_sync(self._choices.rewrite, question, earlier) if earlier else ""
            text = standalone or question
            query = SearchQuery.of(text, (), glossary)
            hits = await self._find(query, access)
            if match_of(hits) >= SELF_CONTAINED:
                earlier = ()
            elif earlier:
                query = SearchQuery.of(text, earlier, glossary)
                hits = await self._find(query, access)
            if self._reranker is not None:
                reranked = await self._reranker.order(f"{query.earlier_text} {text}".strip(), hits)
                hits = reranked[: self._passages]
            span.set_attribute("retrieval.hits", len(hits))
        return SearchResult(
            hits=tuple(hits),
            as_of=access.as_of,
            query=quoting_query(text, () if standalone else earlier[-1:], glossary),
            collection=hits[0].collection if hits else self._index.collection,
            standalone=standalone,
        )

    async def _find(self, query: SearchQuery, access: Access) -> Sequence[Hit]:
        """Return the passages for a query, best first, before a reranker orders them."""
        limit = self._passages if self._reranker is None else max(self._passages, self._reranker.candidates)
        try:
            return await self._index.search(
                query.question, access=access, limit=limit, earlier=query.earlier_text, synonyms=query.synonyms
            )
        except PassageIndexUnavailable as exc:
            raise IndexUnavailable from exc

    async def unknown_share(self, question: str, result: SearchResult, *, tenant: str) -> float:
        """Return the share in [0, 1] of the question's topics missing from the passage that has most of them."""
        passages = [hit.passage for hit in result.hits]
        return await to_thread.run_sync(self._coverage(tenant).unknown_share, question, passages)
