"""From a question in a conversation to passages: a search with the question before it and the caller's access."""

import re
from array import array
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import msgspec
from anyio import to_thread
from opentelemetry import trace
from pydantic import BaseModel, Field

from chatbot.errors import IndexUnavailable
from chatbot.records import SearchFinished
from chatbot.retrieval.reranking import Reranker
from knowledge.access import Access
from knowledge.glossary import Glossary
from knowledge.index import Index
from knowledge.index import IndexUnavailable as IndexFailed
from knowledge.passage import Hit, language_of
from knowledge.query_term_coverage import Coverage

tracer = trace.get_tracer(__name__)


class RetrievalSettings(BaseModel, frozen=True):
    """How many passages an answer may draw from."""

    passages: int = Field(5, description="passages: the most that an answer may draw from")


class SearchResult(msgspec.Struct, frozen=True, kw_only=True):
    """The passages for a question, best first, at the time `as_of` in Unix seconds, and the `SearchQuery.text`.

    A turn's checkpoint stores it, so replicas of two releases read its fields' names.
    """

    hits: tuple[Hit, ...]
    as_of: float
    query: str = msgspec.field(name="wording", default="")
    collection: str = ""
    """The collection of the index that was searched; empty where no search was made."""


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """What is searched for: the question, the one before it where it is a follow-up, and synonyms for their words."""

    question: str
    previous: str
    synonyms: str

    @classmethod
    def of(cls, question: str, earlier: Sequence[str], glossary: Glossary) -> "SearchQuery":
        """Return the query for a question; `earlier` are the customer's questions, oldest first."""
        previous = earlier[-1] if earlier and is_follow_up(question) else ""
        return cls(question, previous, glossary.synonyms(f"{previous} {question}"))

    @property
    def text(self) -> str:
        """All its words."""
        return f"{self.previous} {self.question} {self.synonyms}"


class Retrieval:
    """Searches the index for a question in its conversation."""

    def __init__(
        self,
        index: Index,
        settings: RetrievalSettings,
        glossary: Glossary,
        *,
        own_names: Collection[str] = (),
        reranker: Reranker | None = None,
        on_search: Callable[[SearchFinished], None] | None = None,
    ) -> None:
        self._reranker = reranker
        self._index = index
        self.glossary = glossary
        self._coverage = Coverage(index.terms, glossary, own_names)
        self._settings = settings
        self._on_search = on_search

    async def search(self, question: str, *, earlier: Sequence[str], access: Access) -> SearchResult:
        """Return the passages about the question that `access` permits; `earlier` are the customer's, oldest first.

        Raises:
            IndexUnavailable: the index cannot be searched.
        """
        query = SearchQuery.of(question, earlier, self.glossary)
        vectors: list[Sequence[float]] = []
        wanted = self._settings.passages
        with tracer.start_as_current_span("retrieve") as span:
            try:
                hits = await self._index.search(
                    question,
                    access=access,
                    limit=wanted if self._reranker is None else max(wanted, self._reranker.candidates),
                    before=query.previous,
                    others=query.synonyms,
                    seen=vectors.append,
                )
            except IndexFailed as exc:
                raise IndexUnavailable from exc
            if self._reranker is not None:
                hits = (await self._reranker.order(f"{query.previous} {question}".strip(), hits))[:wanted]
            span.set_attribute("retrieval.hits", len(hits))
        if self._on_search is not None:
            self._on_search(search_record(question, vectors[0], hits))
        return SearchResult(
            hits=tuple(hits),
            as_of=access.as_of,
            query=query.text,
            collection=hits[0].collection if hits else self._index.collection,
        )

    async def unknown_share(self, question: str, result: SearchResult) -> float:
        """Return the share in [0, 1] of the question's terms that even the passage with most of them lacks."""
        passages = [hit.passage for hit in result.hits]
        return await to_thread.run_sync(self._coverage.unknown_share, question, passages)


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


_FOLLOW_UP_KO = re.compile(
    r"^(그|그럼|그러면|그렇다면|그건|그거|그것|이건|이거|거기|저기|그리고|근데|그런데|또|아니|만약|혹시 그)"
    r"|(는요|은요|도요|면요|로는요|에서는요)\s*\?*$|(그 |그건|그거|그것|그럼|거기서|위에|방금|말씀하신|해당)"
)
_FOLLOW_UP_EN = re.compile(
    r"^(and|but|so|then|what about|how about|what if|or)\b"
    r"|\b(it|its|they|them|their|that|those|this|these|there|one|ones)\b",
    re.IGNORECASE,
)


def is_follow_up(question: str) -> bool:
    """Whether the question needs the one before it: it refers back (it, 그건, …는요?) or is very short."""
    words = question.split()
    few = 6 if language_of(question) == "ko" else 4  # Korean omits what was named before
    return len(words) <= few or bool(_FOLLOW_UP_KO.search(question) or _FOLLOW_UP_EN.search(question))
