"""A run as it is written down: one line of measures, and every question with what became of it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from evals.quality.retrieve import HALVES, Ranked
from evals.questions import Answered, Dataset, Sample
from evals.scorers import (
    Interval,
    RankingScore,
    answer_f1,
    change,
    check_numbers,
    holds_answer,
    intervals,
    mean,
    score_citations,
    score_rankings,
    score_refusals,
    score_waits,
)

Measures = dict[str, float | int | str | None]


class RunBroken(Exception):
    """The file holds no run."""


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """An answer with its scores; `correct` is None for questions without known answers."""

    answer: Answered
    correct: bool | None
    f1: float | None
    right_citations: float | None
    cites_answer: bool | None
    unfounded: tuple[str, ...]
    respelled: tuple[str, ...]


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One question of a run."""

    id: str
    kind: str
    question: str
    unanswerable: bool
    measures: Mapping[str, float]
    answers: tuple[str, ...] = ()
    ranked: Ranked | None = None
    judged: Judged | None = None


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """A run: the measures that are printed, how sure they are, and the rows that `compare` and `report` read."""

    dataset: str
    measures: Measures
    rows: tuple[Row, ...]
    intervals: Mapping[str, Interval] = {}


def summarise(dataset: Dataset, ranked: Sequence[Ranked], answers: Sequence[Answered], *, contact: str = "") -> Run:
    """Return the run; `contact` is the bank's own number, which its texts may show without a source."""
    rankings = {one.id: one.documents for one in ranked}
    scores = score_rankings(rankings, {s.id: dataset.relevant.get(s.id, {}) for s in dataset.samples})
    judged = {one.id: judge(sample_of(dataset, one.id), one, dataset, contact=contact) for one in answers}
    by_id = {one.id: one for one in ranked}
    alone = half_scores(ranked, dataset)
    rows = tuple(
        Row(
            id=sample.id,
            kind=sample.kind,
            question=sample.text,
            unanswerable=sample.unanswerable,
            measures=row_measures(sample, scores.get(sample.id), judged.get(sample.id), by_id.get(sample.id))
            | {f"{name} alone": by_half[sample.id] for name, by_half in alone.items() if sample.id in by_half},
            answers=sample.answers,
            ranked=by_id.get(sample.id),
            judged=judged.get(sample.id),
        )
        for sample in dataset.samples
    )
    measures: Measures = {"dataset": dataset.name, "queries": len(rows), "judged": len(scores)}

    def figures(drawn: Sequence[Row]) -> Measures:
        return retrieval_measures(drawn) | (answer_measures(drawn) if answers else {})

    return Run(
        dataset=dataset.name,
        measures=measures | figures(rows) | (beside_halves(rows) if alone else {}),
        rows=rows,
        intervals=intervals(rows, figures),
    )


def half_scores(ranked: Sequence[Ranked], dataset: Dataset) -> dict[str, dict[str, float]]:
    """Return nDCG@10 of every question by each half that was asked alone."""
    relevant = {s.id: dataset.relevant.get(s.id, {}) for s in dataset.samples}
    return {
        name: {
            sample_id: score.ndcg_at_10
            for sample_id, score in score_rankings({r.id: r.halves[name].documents for r in ranked}, relevant).items()
        }
        for name in (ranked[0].halves if ranked else ())
    }


def beside_halves(rows: Sequence[Row]) -> Measures:
    """Return each half's nDCG@10, by how much the fused ranking is above the better one, and what it costs in time."""
    means = {name: mean_of(rows, f"{name} alone") or 0.0 for name in HALVES}
    better = max(means, key=lambda name: means[name])
    scored = [row.measures for row in rows if "ndcg@10" in row.measures]
    above = change([one["ndcg@10"] - one[f"{better} alone"] for one in scored])
    both = score_waits(row.ranked.seconds for row in rows if row.ranked)
    dense = score_waits(row.ranked.halves["dense"].seconds for row in rows if row.ranked)
    return {
        **{f"ndcg@10 {name} alone": rounded(value) for name, value in means.items()},
        f"above {better} alone": rounded(above.mean),
        f"above {better} alone, low": above.interval.low,
        f"above {better} alone, high": above.interval.high,
        f"above {better} alone, p": rounded(above.p),
        "search_seconds_p95": rounded(both.p95),
        "search_seconds_p95 over dense alone": rounded(both.p95 / dense.p95 if both.p95 and dense.p95 else None),
    }


def judge(sample: Sample, answer: Answered, dataset: Dataset, *, contact: str) -> Judged:
    """Return an answer with its scores; only what was answered is scored as an answer."""
    sources = [*answer.cited.values(), *(citation.quote for citation in answer.citations), contact]
    if answer.refused:
        sources.append(sample.text)  # a refusal may repeat the question's numbers
    numbers = check_numbers(answer.text, sources)
    tried = not sample.unanswerable and not answer.refused
    cited = score_citations(answer, dataset.right_documents(sample), sample.answers) if tried else None
    return Judged(
        answer=answer,
        correct=holds_answer(answer.text, sample.answers) if tried and sample.answers else None,
        f1=answer_f1(answer.text, sample.answers) if tried and sample.answers else None,
        right_citations=cited.right if cited and answer.citations else None,
        cites_answer=cited.holds_answer if cited else None,
        unfounded=numbers.unfounded,
        respelled=numbers.respelled,
    )


def row_measures(
    sample: Sample, ranking: RankingScore | None, judged: Judged | None, found: Ranked | None
) -> dict[str, float]:
    """Return what two runs are compared by, for one question."""
    measures: dict[str, float] = {}
    if ranking:
        measures |= {"ndcg@10": ranking.ndcg_at_10, "recall@5": ranking.recall_at_5, "mrr": ranking.reciprocal_rank}
    if found and found.answer_in_top is not None:
        measures["answer_in_top5"] = float(found.answer_in_top)
    if judged:
        refused = judged.answer.refused
        scores = {
            "answered": None if sample.unanswerable else not refused,
            "refused_rightly": refused if sample.unanswerable else None,
            "correct": judged.correct,
            "answer_f1": judged.f1,
            "grounded": None if refused else judged.answer.grounded,
            "citation_precision": judged.right_citations,
            "citation_recall": judged.cites_answer,
            "wrong_numbers": len(judged.unfounded),
            "seconds": judged.answer.seconds,
        }
        measures |= {name: float(value) for name, value in scores.items() if value is not None}
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
    judged = [row.judged for row in rows if row.judged]
    answered = [one for one in judged if not one.answer.refused]
    refusals = score_refusals((row.unanswerable, row.judged.answer.refused) for row in rows if row.judged)
    first = score_waits(one.answer.first_token_seconds for one in answered)
    whole = score_waits(one.answer.seconds for one in answered)
    return {
        "answers": len(judged),
        "answered": rounded(refusals.answered),
        "correct": rounded(mean_of(rows, "correct")),
        "answer_f1": rounded(mean_of(rows, "answer_f1")),
        "grounded": rounded(mean(one.answer.grounded for one in answered)),
        "citation_precision": rounded(mean_of(rows, "citation_precision")),
        "citation_recall": rounded(mean_of(rows, "citation_recall")),
        "refusal_precision": rounded(refusals.precision),
        "refusal_recall": rounded(refusals.recall),
        "numbers_not_in_cited": sum(len(one.unfounded) for one in judged),
        "numbers_respelled": sum(len(one.respelled) for one in answered),
        "errors": sum(one.answer.finish_reason.startswith(("error", "cut")) for one in judged),
        "first_token_seconds_median": rounded(first.median),
        "first_token_seconds_p95": rounded(first.p95),
        "answer_seconds_median": rounded(whole.median),
        "answer_seconds_p95": rounded(whole.p95),
    }


def mean_of(rows: Sequence[Row], name: str) -> float | None:
    """Return the mean of a measure over the questions that have it."""
    return mean(row.measures[name] for row in rows if name in row.measures)


def rounded(value: float | None) -> float | None:
    """Return a figure as it is printed."""
    return None if value is None else round(value, 4)


def sample_of(dataset: Dataset, sample_id: str) -> Sample:
    """Return a question by its id."""
    return next(sample for sample in dataset.samples if sample.id == sample_id)


def write_run(run: Run, path: Path) -> None:
    """Write a run as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(run), indent=1))


def read_run(path: Path) -> Run:
    """Read a run.

    Raises:
        RunBroken: it is none.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Run)
    except (OSError, msgspec.DecodeError) as exc:
        raise RunBroken(f"{path} holds no run of `evals run --output`: {exc}") from exc
