"""A run as it is stored: the measures, and a row for every question."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec.structs import replace

from evals.quality.retrieve import HALVES, Ranking
from evals.questions import CustomerAnswer, Dataset, Sample
from evals.scorers import (
    Interval,
    Judgement,
    RankingScore,
    answer_f1,
    change,
    check_numbers,
    intervals,
    judge_answer,
    mean,
    score_citations,
    score_rankings,
    score_refusals,
    score_waits,
)

T = TypeVar("T")
Measures = dict[str, float | int | str | None]
_FORMER_NAMES = {"correct": "right"}
"""Of measures, in files that earlier releases wrote."""


class RunBroken(Exception):
    """The file holds no run; the message says why."""


class ScoredAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer with its scores; `judgement` is None of a refusal and for questions without known answers."""

    answer: CustomerAnswer
    judgement: Judgement | None = None
    f1: float | None
    right_citations: float | None
    cites_answer: bool | None
    unfounded: tuple[str, ...]
    respelled: tuple[str, ...]


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One question of a run: its measures, its ranking and its answer with scores."""

    id: str
    kind: str
    question: str
    unanswerable: bool
    measures: Mapping[str, float]
    answers: tuple[str, ...] = ()
    ranked: Ranking | None = None
    judged: ScoredAnswer | None = None


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """A run: the printed measures with their 95 % intervals, and the rows that `compare` and `report` read."""

    dataset: str
    measures: Measures
    rows: tuple[Row, ...]
    intervals: Mapping[str, Interval] = {}


def summarise(
    dataset: Dataset, rankings: Sequence[Ranking], answers: Sequence[CustomerAnswer], *, contact: str = ""
) -> Run:
    """Return the run; `contact` is the bank's telephone number, which an answer may show without a source."""
    by_id = {ranking.id: ranking for ranking in rankings}
    scores = score_rankings({ranking.id: ranking.documents for ranking in rankings}, relevant_entries(dataset))
    samples = {sample.id: sample for sample in dataset.samples}
    scored = {answer.id: score_answer(samples[answer.id], answer, dataset, contact=contact) for answer in answers}
    half_scores = score_halves(rankings, dataset)
    rows = tuple(
        Row(
            id=sample.id,
            kind=sample.kind,
            question=sample.text,
            unanswerable=sample.unanswerable,
            measures=row_measures(sample, scores.get(sample.id), scored.get(sample.id), by_id.get(sample.id))
            | {f"{name} alone": ndcg[sample.id] for name, ndcg in half_scores.items() if sample.id in ndcg},
            answers=sample.answers,
            ranked=by_id.get(sample.id),
            judged=scored.get(sample.id),
        )
        for sample in dataset.samples
    )
    measures: Measures = {"dataset": dataset.name, "queries": len(rows), "judged": len(scores)}

    def figures(drawn: Sequence[Row]) -> Measures:
        return retrieval_measures(drawn) | (answer_measures(drawn) if answers else {})

    return Run(
        dataset=dataset.name,
        measures=measures | figures(rows) | (half_measures(rows) if half_scores else {}),
        rows=rows,
        intervals=intervals(rows, figures),
    )


def relevant_entries(dataset: Dataset) -> dict[str, Mapping[str, int]]:
    """Return the relevant entries of every question, none for one without."""
    return {sample.id: dataset.relevant.get(sample.id, {}) for sample in dataset.samples}


def score_halves(rankings: Sequence[Ranking], dataset: Dataset) -> dict[str, dict[str, float]]:
    """Return nDCG@10 of every question by each half that searched alone."""
    relevant = relevant_entries(dataset)
    return {
        name: {
            sample_id: score.ndcg_at_10
            for sample_id, score in score_rankings(
                {ranking.id: ranking.halves[name].documents for ranking in rankings}, relevant
            ).items()
        }
        for name in (rankings[0].halves if rankings else ())
    }


def half_measures(rows: Sequence[Row]) -> Measures:
    """Return each half's nDCG@10, the lead of the fused ranking over the better half, and the cost in time."""
    means = {name: mean_of(rows, f"{name} alone") or 0.0 for name in HALVES}
    better = max(means, key=lambda name: means[name])
    scored = [row.measures for row in rows if "ndcg@10" in row.measures]
    lead = change([measures["ndcg@10"] - measures[f"{better} alone"] for measures in scored])
    both = score_waits(row.ranked.seconds for row in rows if row.ranked)
    dense = score_waits(row.ranked.halves["dense"].seconds for row in rows if row.ranked)
    return {
        **{f"ndcg@10 {name} alone": rounded(value) for name, value in means.items()},
        f"above {better} alone": rounded(lead.mean),
        f"above {better} alone, low": lead.interval.low,
        f"above {better} alone, high": lead.interval.high,
        f"above {better} alone, p": rounded(lead.p),
        "search_seconds_p95": rounded(both.p95),
        "search_seconds_p95 over dense alone": rounded(both.p95 / dense.p95 if both.p95 and dense.p95 else None),
    }


def score_answer(sample: Sample, answer: CustomerAnswer, dataset: Dataset, *, contact: str) -> ScoredAnswer:
    """Return an answer with its scores; a refusal has no scores of an answer."""
    sources = [*answer.cited.values(), *(citation.quote for citation in answer.citations), contact]
    if answer.refused:
        sources.append(sample.text)  # a refusal may repeat the question's numbers
    numbers = check_numbers(answer.text, sources)
    is_scored = not sample.unanswerable and not answer.refused
    is_judged = is_scored and bool(sample.answers)
    cited = score_citations(answer, dataset.right_documents(sample), sample.answers) if is_scored else None
    return ScoredAnswer(
        answer=answer,
        judgement=judge_answer(answer.text, sample.whole or sample.text, sample.answers) if is_judged else None,
        f1=answer_f1(answer.text, sample.answers) if is_judged else None,
        right_citations=cited.right if cited and answer.citations else None,
        cites_answer=cited.holds_answer if cited else None,
        unfounded=numbers.unfounded,
        respelled=numbers.respelled,
    )


def row_measures(
    sample: Sample, score: RankingScore | None, scored: ScoredAnswer | None, ranking: Ranking | None
) -> dict[str, float]:
    """Return the measures of one question, by which two runs are compared."""
    measures: dict[str, float] = {}
    if score:
        measures |= {"ndcg@10": score.ndcg_at_10, "recall@5": score.recall_at_5, "mrr": score.reciprocal_rank}
    if ranking and ranking.answer_in_top is not None:
        measures["answer_in_top5"] = float(ranking.answer_in_top)
    if scored:
        refused = scored.answer.refused
        values = {
            "answered": None if sample.unanswerable else not refused,
            "refused_rightly": refused if sample.unanswerable else None,
            "answer_f1": scored.f1,
            "grounded": None if refused else scored.answer.grounded,
            "quoted": None if refused else scored.answer.quoted,
            "citation_precision": scored.right_citations,
            "citation_recall": scored.cites_answer,
            "wrong_numbers": len(scored.unfounded),
            "seconds": scored.answer.seconds,
        }
        measures |= {name: float(value) for name, value in values.items() if value is not None}
        if scored.judgement is not None:
            measures |= {judgement: float(judgement is scored.judgement) for judgement in Judgement}
    return measures


def retrieval_measures(rows: Sequence[Row]) -> Measures:
    """Return the means over the questions that have relevant entries."""
    waits = score_waits(row.ranked.seconds for row in rows if row.ranked)
    return {
        **{name: rounded(mean_of(rows, name)) for name in ("ndcg@10", "recall@5", "mrr", "answer_in_top5")},
        "search_seconds_median": rounded(waits.median),
    }


def answer_measures(rows: Sequence[Row]) -> Measures:
    """Return the measures of answers; shares of nothing are None."""
    scored = [row.judged for row in rows if row.judged]
    answered = [answer for answer in scored if not answer.answer.refused]
    refusals = score_refusals((row.unanswerable, row.judged.answer.refused) for row in rows if row.judged)
    first = score_waits(answer.answer.first_token_seconds for answer in answered)
    whole = score_waits(answer.answer.seconds for answer in answered)
    return {
        "answers": len(scored),
        "answered": rounded(refusals.answered),
        **{judgement: rounded(mean_of(rows, judgement)) for judgement in Judgement},
        "answer_f1": rounded(mean_of(rows, "answer_f1")),
        "grounded": rounded(mean(answer.answer.grounded for answer in answered)),
        "quoted": rounded(mean(answer.answer.quoted for answer in answered)),
        "citation_precision": rounded(mean_of(rows, "citation_precision")),
        "citation_recall": rounded(mean_of(rows, "citation_recall")),
        "refusal_precision": rounded(refusals.precision),
        "refusal_recall": rounded(refusals.recall),
        "numbers_not_in_cited": sum(len(answer.unfounded) for answer in scored),
        "numbers_respelled": sum(len(answer.respelled) for answer in answered),
        "errors": sum(answer.answer.finish_reason.startswith(("error", "cut")) for answer in scored),
        "first_token_seconds_median": rounded(first.median),
        "first_token_seconds_p95": rounded(first.p95),
        "answer_seconds_median": rounded(whole.median),
        "answer_seconds_p95": rounded(whole.p95),
    }


def mean_of(rows: Sequence[Row], name: str) -> float | None:
    """Return the mean of a measure over the questions that have it."""
    return mean(row.measures[name] for row in rows if name in row.measures)


def rounded(value: float | None) -> float | None:
    """Return a figure rounded as it is printed."""
    return None if value is None else round(value, 4)


def write_run(run: Run, path: Path) -> None:
    """Write a run as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(run), indent=1))


def read_run(path: Path) -> Run:
    """Read a run.

    Raises:
        RunBroken: the file holds none.
    """
    try:
        run = msgspec.json.decode(path.read_bytes(), type=Run)
    except (OSError, msgspec.DecodeError) as exc:
        raise RunBroken(f"{path} holds no run of `evals run --output`: {exc}") from exc
    rows = (replace(row, measures=_of_today(row.measures)) for row in run.rows)
    return replace(run, measures=_of_today(run.measures), intervals=_of_today(run.intervals), rows=tuple(rows))


def _of_today(named: Mapping[str, T]) -> dict[str, T]:
    return {_FORMER_NAMES.get(name, name): value for name, value in named.items()}
