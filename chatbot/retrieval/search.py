"""From a question in a conversation to passages: written out or with those before it, and with the caller's access."""

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
from anyio import to_thread
from opentelemetry import trace

from chatbot.errors import IndexUnavailable
from chatbot.records import SearchFinished
from chatbot.retrieval.reranking import Reranker
from chatbot.retrieval.standalone import ChoiceResolver
from knowledge.access import Access
from knowledge.bank import Banks
from knowledge.glossary import Glossary
from knowledge.index import Index
from knowledge.index import IndexUnavailable as IndexFailed
from knowledge.passage import Hit, language_of
from knowledge.query_term_coverage import Coverage

tracer = trace.get_tracer(__name__)

PASSAGES = 5
"""The most that an answer may draw from."""


class SearchResult(msgspec.Struct, frozen=True, kw_only=True):
    """The passages for a question, best first, at the time `as_of` in Unix seconds, and the words to quote them by.

    A turn's checkpoint stores it, so replicas of two releases read its fields' names.
    """

    hits: tuple[Hit, ...]
    as_of: float
    query: str = msgspec.field(name="wording", default="")
    collection: str = ""
    """The collection of the index that was searched; empty where no search was made."""
    standalone: str = ""
    """The question as it is understood alone; empty where it is asked as it stands, after the messages before it."""


LONGEST_BEFORE = 200
"""Characters of the questions before one that are searched with it."""


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """What is searched for: the question, those before it, which count less, and synonyms for their words."""

    question: str
    earlier: tuple[str, ...]
    synonyms: str

    @classmethod
    def of(cls, question: str, earlier: Sequence[str], glossary: Glossary) -> "SearchQuery":
        """Return the query for a question; `earlier` are those before it, oldest first, of which the last are taken.

        Of one that could never be taken as a whole the end is, where its question stands.
        """
        kept: list[str] = []
        left = LONGEST_BEFORE
        for text in reversed(earlier):
            if len(text) > left:
                end = _end_of(text, left) if len(text) > LONGEST_BEFORE else ""
                kept[:0] = [end] if end else []
                break
            kept.insert(0, text)
            left -= len(text)
        return cls(question, tuple(kept), glossary.synonyms(" ".join((*kept, question))))

    @property
    def before(self) -> str:
        """The questions before, as one text."""
        return " ".join(self.earlier)

    @property
    def text(self) -> str:
        """All its words."""
        return " ".join((*self.earlier, self.question, self.synonyms))


def _end_of(text: str, most: int) -> str:
    """Return the whole words at the end of a text that have at most so many characters."""
    end = text[len(text) - most :]
    return end.partition(" ")[2] or end


def quoting_query(question: str, previous: Sequence[str], glossary: Glossary) -> str:
    """Return the words by which passages are quoted: `previous` is the question before, none where it is not needed."""
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
        on_search: Callable[[SearchFinished], None] | None = None,
    ) -> None:
        self._reranker = reranker
        self._index = index
        self._banks = banks
        self._coverage = banks.each(lambda bank: Coverage(index.terms, bank.synonyms, bank.own_names))
        self._choices = ChoiceResolver(index.terms)
        self._passages = passages
        self._on_search = on_search

    async def search(self, question: str, *, earlier: Sequence[str], access: Access) -> SearchResult:
        """Return the passages about the question that `access` permits; `earlier` are those before it, oldest first.

        Raises:
            IndexUnavailable: the index cannot be searched.
        """
        with tracer.start_as_current_span("retrieve") as span:
            standalone = await to_thread.run_sync(self._choices.write_out, question, earlier) if earlier else ""
            glossary = self._banks.of(access.tenant).synonyms
            query = SearchQuery.of(standalone or question, earlier, glossary)
            vectors: list[Sequence[float]] = []
            wanted = self._passages
            try:
                hits = await self._index.search(
                    query.question,
                    access=access,
                    limit=wanted if self._reranker is None else max(wanted, self._reranker.candidates),
                    before=query.before,
                    others=query.synonyms,
                    seen=vectors.append,
                )
            except IndexFailed as exc:
                raise IndexUnavailable from exc
            if self._reranker is not None:
                hits = (await self._reranker.order(f"{query.before} {query.question}".strip(), hits))[:wanted]
            span.set_attribute("retrieval.hits", len(hits))
        if self._on_search is not None:
            self._on_search(search_record(question, vectors[0], hits))
        return SearchResult(
            hits=tuple(hits),
            as_of=access.as_of,
            query=quoting_query(query.question, () if standalone else earlier[-1:], glossary),
            collection=hits[0].collection if hits else self._index.collection,
            standalone=standalone,
        )

    async def unknown_share(self, question: str, result: SearchResult, *, tenant: str) -> float:
        """Return the share in [0, 1] of the question's topics that even the passage with most of them lacks."""
        passages = [hit.passage for hit in result.hits]
        return await to_thread.run_sync(self._coverage(tenant).unknown_share, question, passages)


def search_record(question: str, vector: Sequence[float], hits: Sequence[Hit]) -> SearchFinished:
    """Return the record of a search for hooks; it holds no word of the question."""
    best = hits[0] if hits else None
    return SearchFinished(
        vector=array("f", vector),
        language=language_of(question),
        meaning=best.dense if best else 0.0,
        terms=best.terms if best else 0.0,
        about=best.passage.title if best else "",
    )
