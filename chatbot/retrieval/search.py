"""Search passages for a question, rewritten or combined with earlier questions, within the caller's access."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
from anyio import to_thread
from opentelemetry import trace

from chatbot.errors import IndexUnavailable
from chatbot.retrieval.reranking import Reranker
from chatbot.retrieval.standalone import ChoiceResolver
from knowledge.access import Access
from knowledge.bank import Banks
from knowledge.glossary import Glossary
from knowledge.index import Index
from knowledge.index import IndexUnavailable as IndexFailed
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


LONGEST_BEFORE = 200
"""The maximum number of characters of earlier questions in a search."""


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
        kept_texts: list[str] = []
        room = LONGEST_BEFORE
        for text in reversed(earlier):
            if len(text) > room:
                end = _end_of(text, room) if len(text) > LONGEST_BEFORE else ""
                kept_texts[:0] = [end] if end else []
                break
            kept_texts.insert(0, text)
            room -= len(text)
        return cls(question, tuple(kept_texts), glossary.synonyms(" ".join((*kept_texts, question))))

    @property
    def before(self) -> str:
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


def quoting_query(question: str, previous: Sequence[str], glossary: Glossary) -> str:
    """Return the words that select the quoted units; `previous` is the previous question, or empty if not needed."""
    return SearchQuery.of(question, previous, glossary).text


class Retrieval:
    """Searches the index for a question in its conversation."""

    def __init__(
        self,
        index: Index,
        banks: Banks,
        *,
        passages: int = PASSAGES,
        reranker: Reranker | None = None,
    ) -> None:
        self._reranker = reranker
        self._index = index
        self._banks = banks
        self._coverage = banks.each(lambda bank: Coverage(index.terms, bank.synonyms, bank.own_names))
        self._choices = ChoiceResolver(index.terms)
        self._passages = passages

    async def search(self, question: str, *, earlier: Sequence[str], access: Access) -> SearchResult:
        """Return the passages for the question that `access` permits; `earlier` are questions, oldest first.

        Raises:
            IndexUnavailable: the index cannot be searched.
        """
        with tracer.start_as_current_span("retrieve") as span:
            standalone = await to_thread.run_sync(self._choices.write_out, question, earlier) if earlier else ""
            glossary = self._banks.of(access.tenant).synonyms
            query = SearchQuery.of(standalone or question, earlier, glossary)
            wanted = self._passages
            try:
                hits = await self._index.search(
                    query.question,
                    access=access,
                    limit=wanted if self._reranker is None else max(wanted, self._reranker.candidates),
                    before=query.before,
                    others=query.synonyms,
                )
            except IndexFailed as exc:
                raise IndexUnavailable from exc
            if self._reranker is not None:
                hits = (await self._reranker.order(f"{query.before} {query.question}".strip(), hits))[:wanted]
            span.set_attribute("retrieval.hits", len(hits))
        return SearchResult(
            hits=tuple(hits),
            as_of=access.as_of,
            query=quoting_query(query.question, () if standalone else earlier[-1:], glossary),
            collection=hits[0].collection if hits else self._index.collection,
            standalone=standalone,
        )

    async def unknown_share(self, question: str, result: SearchResult, *, tenant: str) -> float:
        """Return the share in [0, 1] of the question's topics missing from the passage that has most of them."""
        passages = [hit.passage for hit in result.hits]
        return await to_thread.run_sync(self._coverage(tenant).unknown_share, question, passages)
