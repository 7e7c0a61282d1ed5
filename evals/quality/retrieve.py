"""Search each question of a data set with the product's retrieval, and rank the corpus entries of the hits."""

import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import date, datetime
from datetime import time as clock_time
from zoneinfo import ZoneInfo

import msgspec
import stamina

from chatbot import quotes
from chatbot.errors import IndexUnavailable
from chatbot.retrieval import PASSAGES, Retrieval
from evals.questions import TENANT, Sample
from evals.sample_bank import sample_banks
from evals.scorers import holds_answer
from knowledge.access import EVERY_CUSTOMER, Access
from knowledge.index import Index
from knowledge.passage import Hit, language_of

ZONE = ZoneInfo("Asia/Seoul")
DEPTH = 50
"""Passages per search, enough to contain ten different documents."""


class Ranking(msgspec.Struct, frozen=True, kw_only=True):
    """The ranked entries, best first, and whether the prompt and the units quoted from it state an answer."""

    id: str
    documents: tuple[str, ...]
    answer_in_top: bool | None
    answer_quoted: bool | None
    best_terms: float
    seconds: float


async def rank(samples: Sequence[Sample], index: Index, entries: Mapping[str, str]) -> AsyncGenerator[Ranking]:
    """Yield the ranking of each question in order; a follow-up is searched with its history, as in a turn."""
    retrieval = Retrieval(index, sample_banks(), passages=DEPTH)
    for sample in samples:
        as_of = noon(sample.as_of) if sample.as_of else time.time()
        access = Access(tenant=TENANT, groups=frozenset({EVERY_CUSTOMER}), as_of=as_of)
        hits, seconds = await timed_search(retrieval, sample, access)
        yield ranking_of(sample, hits, entries, prompt_hits=PASSAGES, seconds=seconds)


async def timed_search(retrieval: Retrieval, sample: Sample, access: Access) -> tuple[Sequence[Hit], float]:
    """Return the hits for a question and the duration of the search in seconds; retries on a busy machine."""
    async for attempt in stamina.retry_context(on=IndexUnavailable, attempts=10, timeout=300.0):
        with attempt:
            earlier = await earlier_questions(retrieval, sample, access)
            began = time.perf_counter()
            result = await retrieval.search(sample.text, earlier=earlier, access=access)
            seconds = time.perf_counter() - began
    return result.hits, seconds


async def earlier_questions(retrieval: Retrieval, sample: Sample, access: Access) -> list[str]:
    """Return the customer's earlier questions in order, each rewritten by its search, as in a conversation."""
    earlier: list[str] = []
    for text in sample.earlier:
        result = await retrieval.search(text, earlier=earlier, access=access)
        earlier.append(result.standalone or text)
    return earlier


def noon(day: date) -> float:
    """Return noon of a day in the bank's time zone, in Unix seconds."""
    return datetime.combine(day, clock_time(12), tzinfo=ZONE).timestamp()


def documents_of(hits: Sequence[Hit], entries: Mapping[str, str]) -> tuple[str, ...]:
    """Return the entries of the hits, each at the rank of its best passage."""
    return tuple(dict.fromkeys(entries.get(hit.passage.document_id, "") for hit in hits))


def ranking_of(
    sample: Sample, hits: Sequence[Hit], entries: Mapping[str, str], *, prompt_hits: int, seconds: float
) -> Ranking:
    """Return the ranking of a question; the first `prompt_hits` hits are in the prompt."""
    prompt_texts = [hit.passage.text for hit in hits[:prompt_hits]]
    quoted = quotes.close_candidates(quotes.rank(sample.text, hits[:prompt_hits], language_of(sample.text)))
    return Ranking(
        id=sample.id,
        documents=documents_of(hits, entries),
        answer_in_top=any(holds_answer(text, sample.answers) for text in prompt_texts) if sample.answers else None,
        answer_quoted=any(holds_answer(unit.text, sample.answers) for unit in quoted) if sample.answers else None,
        best_terms=max((hit.terms for hit in hits), default=0.0),
        seconds=seconds,
    )
