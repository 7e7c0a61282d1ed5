"""Asks the product's own retrieval every question of a data set and ranks the corpus entries it finds."""

import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import date, datetime
from datetime import time as clock_time
from zoneinfo import ZoneInfo

import msgspec
import stamina

from chatbot.errors import IndexUnavailable
from chatbot.retrieval import Retrieval, RetrievalSettings
from evals.questions import TENANT, Sample
from evals.scorers import holds_answer
from knowledge.access import EVERY_CUSTOMER, Access
from knowledge.glossary import load_glossary
from knowledge.index import Index
from knowledge.passage import Hit

ZONE = ZoneInfo("Asia/Seoul")
HALVES: Mapping[str, float] = {"dense": 1.0, "terms": 0.0}
"""The weights of the dense half with which each half answers alone."""
DEPTH = 50
"""Passages asked for, so that ten different documents are among them."""


class Half(msgspec.Struct, frozen=True):
    """What one half of retrieval found by itself, best first, and the seconds that it took."""

    documents: tuple[str, ...]
    seconds: float


class Ranked(msgspec.Struct, frozen=True, kw_only=True):
    """What retrieval found: entries best first, and whether the five best passages say an answer (None: unknown)."""

    id: str
    documents: tuple[str, ...]
    answer_in_top: bool | None
    best_dense: float
    best_terms: float
    margin: float
    seconds: float
    halves: Mapping[str, Half] = {}


async def rank(
    samples: Sequence[Sample],
    index: Index,
    entries: Mapping[str, str],
    *,
    tenant: str = TENANT,
    halves: Mapping[str, float] = {},
) -> AsyncGenerator[Ranked]:
    """Yield what is found for each question, in order; follow-ups are read with their history as customers' are.

    `halves` are other weights of the dense half to search with as well, by name.
    """
    settings, glossary = RetrievalSettings(passages=DEPTH), load_glossary()
    retrieval = Retrieval(index, settings, glossary)
    others = {name: Retrieval(index.weighing(weight), settings, glossary) for name, weight in halves.items()}
    shown = RetrievalSettings().passages
    for sample in samples:
        as_of = noon(sample.as_of) if sample.as_of else time.time()
        access = Access(tenant=tenant, groups=frozenset({EVERY_CUSTOMER}), as_of=as_of)
        hits, seconds = await found_by(retrieval, sample, access)
        alone: dict[str, Half] = {}
        for name, half in others.items():
            its_hits, its_seconds = await found_by(half, sample, access)
            alone[name] = Half(documents_of(its_hits, entries), its_seconds)
        yield ranked(sample, hits, entries, shown=shown, seconds=seconds, halves=alone)


async def found_by(retrieval: Retrieval, sample: Sample, access: Access) -> tuple[Sequence[Hit], float]:
    """Return what is found for a question, and in how many seconds; a machine that is busy is no fault of it."""
    async for attempt in stamina.retry_context(on=IndexUnavailable, attempts=10, timeout=300.0):
        with attempt:
            began = time.perf_counter()
            found = await retrieval.search(sample.text, earlier=sample.earlier, access=access)
            seconds = time.perf_counter() - began
    return found.hits, seconds


def noon(day: date) -> float:
    """Return the middle of a day in the bank's zone, in Unix seconds."""
    return datetime.combine(day, clock_time(12), tzinfo=ZONE).timestamp()


def documents_of(hits: Sequence[Hit], entries: Mapping[str, str]) -> tuple[str, ...]:
    """Return the entries behind hits, each where its best passage stands."""
    return tuple(dict.fromkeys(entries.get(hit.passage.document_id, "") for hit in hits))


def ranked(
    sample: Sample,
    hits: Sequence[Hit],
    entries: Mapping[str, str],
    *,
    shown: int,
    seconds: float,
    halves: Mapping[str, Half] = {},
) -> Ranked:
    """Return the ranking of entries: each stands where its best passage does."""
    top = [hit.passage.text for hit in hits[:shown]]
    scores = [hit.score for hit in hits]
    return Ranked(
        id=sample.id,
        documents=documents_of(hits, entries),
        answer_in_top=any(holds_answer(text, sample.answers) for text in top) if sample.answers else None,
        best_dense=max((hit.dense for hit in hits), default=0.0),
        best_terms=max((hit.terms for hit in hits), default=0.0),
        margin=scores[0] - scores[shown] if len(scores) > shown else 0.0,
        seconds=seconds,
        halves=halves,
    )
