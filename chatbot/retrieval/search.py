"""From a question in a conversation to passages: with what was asked before it, searched with the caller's access."""

import re
from array import array
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from anyio import to_thread
from opentelemetry import trace
from pydantic import BaseModel

from chatbot.errors import IndexUnavailable
from chatbot.records import SearchFinished
from chatbot.retrieval.reranking import Reranker
from knowledge.access import Access
from knowledge.glossary import Glossary
from knowledge.index import Index
from knowledge.index import IndexUnavailable as IndexAway
from knowledge.passage import Hit, language_of
from knowledge.query_term_coverage import Coverage

tracer = trace.get_tracer(__name__)


class RetrievalSettings(BaseModel, frozen=True):
    """How many passages an answer may draw from."""

    passages: int = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """The passages for a question, best first, at an instant in Unix seconds, and the `Wording` that found them."""

    hits: tuple[Hit, ...]
    as_of: float
    wording: str = ""
    collection: str = ""
    """Of the index, in which they were found; empty where nothing was looked for."""


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """What is looked for: the question, the one before it where it leans on that, other words for the same."""

    question: str
    before: str
    others: str

    @classmethod
    def of(cls, question: str, earlier: Sequence[str], glossary: Glossary) -> "SearchQuery":
        """Return what a question looks for; `earlier` are the customer's questions, oldest first."""
        before = earlier[-1] if earlier and is_follow_up(question) else ""
        return cls(question, before, glossary.others(f"{before} {question}"))

    @property
    def text(self) -> str:
        """All of it."""
        return f"{self.before} {self.question} {self.others}"


class Retrieval:
    """Searches the index for a question in its conversation."""

    def __init__(
        self,
        passages: Index,
        settings: RetrievalSettings,
        glossary: Glossary,
        *,
        own_names: Collection[str] = (),
        reranker: Reranker | None = None,
        on_search: Callable[[SearchFinished], None] | None = None,
    ) -> None:
        self._reranker = reranker
        self._index = passages
        self.glossary = glossary
        self._coverage = Coverage(passages.terms, glossary, own_names)
        self._settings = settings
        self._on_search = on_search

    async def search(self, question: str, *, earlier: Sequence[str], access: Access) -> SearchResult:
        """Return what the caller may read about the question; `earlier` are the customer's questions, oldest first.

        Raises:
            IndexUnavailable: the index cannot be asked.
        """
        wording = SearchQuery.of(question, earlier, self.glossary)
        vectors: list[Sequence[float]] = []
        wanted = self._settings.passages
        with tracer.start_as_current_span("retrieve") as span:
            try:
                hits = await self._index.search(
                    question,
                    access=access,
                    limit=wanted if self._reranker is None else max(wanted, self._reranker.candidates),
                    before=wording.before,
                    others=wording.others,
                    seen=vectors.append,
                )
            except IndexAway as exc:
                raise IndexUnavailable from exc
            if self._reranker is not None:
                hits = (await self._reranker.order(f"{wording.before} {question}".strip(), hits))[:wanted]
            span.set_attribute("retrieval.hits", len(hits))
        if self._on_search is not None:
            self._on_search(search_record(question, vectors[0], hits))
        return SearchResult(
            hits=tuple(hits),
            as_of=access.as_of,
            wording=wording.text,
            collection=hits[0].collection if hits else self._index.collection,
        )

    async def unknown_share(self, question: str, found: SearchResult) -> float:
        """Return the share in [0, 1] of what the question names that none of the passages says by itself."""
        passages = [hit.passage for hit in found.hits]
        return await to_thread.run_sync(self._coverage.unknown, question, passages)


def search_record(question: str, vector: Sequence[float], hits: Sequence[Hit]) -> SearchFinished:
    """Return what is remembered of a search: no word of the question."""
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
    """Return whether the question cannot be understood alone: it points back (it, 그건, …는요?) or is very short."""
    words = question.split()
    few = 6 if language_of(question) == "ko" else 4  # Korean leaves out what was named before
    return len(words) <= few or bool(_FOLLOW_UP_KO.search(question) or _FOLLOW_UP_EN.search(question))
