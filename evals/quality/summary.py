"""A run as stored: the measures, and one row per question."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from chatbot.grounding import unsupported_quantities
from evals.quality.retrieve import Ranking
from evals.questions import CustomerAnswer, Dataset, Sample
from evals.scorers import (
    Interval,
    Judgement,
    intervals,
    judge_answer,
    mean,
    score_citations,
    score_rankings,
    score_waits,
)

Measures = dict[str, float | int | str | None]


class RunBroken(Exception):
    """The file is not a valid run; the message contains the reason."""


class ScoredAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer with its scores; `judgement` is None for a refusal or a question without known answers."""

    answer: CustomerAnswer
    judgement: Judgement | None = None
    right_citations: float | None
    cites_answer: bool | None
    unfounded: tuple[str, ...]  # the quantities that no source states


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One question of a run: its measures, its ranking and its scored answer."""

    id: str
    kind: str
    question: str
    unanswerable: bool
    measures: Mapping[str, float]
    answers: tuple[str, ...] = ()
    ranked: Ranking | None = None
    judged: ScoredAnswer | None = None


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """A run: the printed measures with 95 % intervals, and the rows that `compare` and `report` read."""

    dataset: str
    measures: Measures
    rows: tuple[Row, ...]
    intervals: Mapping[str, Interval] = {}


def summarise(
    dataset: Dataset, rankings: Sequence[Ranking], answers: Sequence[CustomerAnswer], *, contact: str = ""
) -> Run:
    """Return the run; `contact` is the bank's telephone number, which needs no source in an answer."""
    rankings_by_id = {ranking.id: ranking for ranking in rankings}
    scores = score_rankings({ranking.id: ranking.documents for ranking in rankings}, dataset.relevant)
    samples = {sample.id: sample for sample in dataset.samples}
    scored = {answer.id: score_answer(samples[answer.id], answer, dataset, contact=contact) for answer in answers}
    rows = tuple(
        Row(
            id=sample.id,
            kind=sample.kind,
            question=sample.text,
            unanswerable=sample.unanswerable,
            measures=row_measures(
                sample, scores.get(sample.id, {}), scored.get(sample.id), rankings_by_id.get(sample.id)
            ),
            answers=sample.answers,
            ranked=rankings_by_id.get(sample.id),
            judged=scored.get(sample.id),
        )
        for sample in dataset.samples
    )
    measures: Measures = {"dataset": dataset.name, "queries": len(rows), "judged": len(scores)}

    def figures(sampled_rows: Sequence[Row]) -> Measures:
        return retrieval_measures(sampled_rows) | (answer_measures(sampled_rows) if answers else {})

    return Run(dataset=dataset.name, measures=measures | figures(rows), rows=rows, intervals=intervals(rows, figures))


def score_answer(sample: Sample, answer: CustomerAnswer, dataset: Dataset, *, contact: str) -> ScoredAnswer:
    """Score an answer; a refusal has no judgement and no citation scores."""
    sources = [*answer.cited.values(), *(citation.quote for citation in answer.citations), contact]
    if answer.refused:
        sources.append(sample.text)  # a refusal may repeat the question's numbers
    is_scored = not sample.unanswerable and not answer.refused
    is_judged = is_scored and bool(sample.answers)
    cited = score_citations(answer, dataset.right_documents(sample), sample.answers) if is_scored else None
    return ScoredAnswer(
        answer=answer,
        judgement=judge_answer(answer.text, sample.whole or sample.text, sample.answers) if is_judged else None,
        right_citations=cited.right if cited and answer.citations else None,
        cites_answer=cited.holds_answer if cited else None,
        unfounded=tuple(quantity.text for quantity in unsupported_quantities(answer.text, sources)),
    )


def row_measures(
    sample: Sample, score: Mapping[str, float], scored: ScoredAnswer | None, ranking: Ranking | None
) -> dict[str, float]:
    """Return the measures of one question, as used by `compare`."""
    measures = dict(score)
    if ranking and ranking.answer_in_top is not None:
        measures["answer_in_top5"] = float(ranking.answer_in_top)
    if ranking and ranking.answer_quoted is not None:
        measures["answer_quoted"] = float(ranking.answer_quoted)
    if scored:
        refused = scored.answer.refused
        values = {
            "answered": None if sample.unanswerable else not refused,
            "refused_rightly": refused if sample.unanswerable else None,
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
    """Return the means over the questions with relevant entries."""
    median, _ = score_waits(row.ranked.seconds for row in rows if row.ranked)
    names = ("ndcg@10", "recall@5", "mrr", "answer_in_top5", "answer_quoted")
    return {
        **{name: rounded(mean_of(rows, name)) for name in names},
        "search_seconds_median": rounded(median),
    }


def answer_measures(rows: Sequence[Row]) -> Measures:
    """Return the measures of answers; shares without cases are None."""
    scored = [row.judged for row in rows if row.judged]
    answers = [one.answer for one in scored if not one.answer.refused]
    first, first_p95 = score_waits(answer.first_token_seconds for answer in answers)
    whole, whole_p95 = score_waits(answer.seconds for answer in answers)
    return {
        "answers": len(scored),
        "answered": rounded(mean_of(rows, "answered")),
        **{judgement: rounded(mean_of(rows, judgement)) for judgement in Judgement},
        "grounded": rounded(mean(answer.grounded for answer in answers)),
        "quoted": rounded(mean(answer.quoted for answer in answers)),
        "citation_precision": rounded(mean_of(rows, "citation_precision")),
        "citation_recall": rounded(mean_of(rows, "citation_recall")),
        "refusal_precision": rounded(
            mean(row.unanswerable for row in rows if row.judged and row.judged.answer.refused)
        ),
        "refusal_recall": rounded(mean_of(rows, "refused_rightly")),
        "numbers_not_in_cited": sum(len(one.unfounded) for one in scored),
        "errors": sum(one.answer.finish_reason.startswith(("error", "cut")) for one in scored),
        "first_token_seconds_median": rounded(first),
        "first_token_seconds_p95": rounded(first_p95),
        "answer_seconds_median": rounded(whole),
        "answer_seconds_p95": rounded(whole_p95),
    }


def mean_of(rows: Sequence[Row], name: str) -> float | None:
    """Return the mean of a measure over the questions that have it."""
    return mean(row.measures[name] for row in rows if name in row.measures)


def rounded(value: float | None) -> float | None:
    """Round a figure for printing."""
    return None if value is None else round(value, 4)


def write_run(run: Run, path: Path) -> None:
    """Write a run as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(run), indent=1))


def read_run(path: Path) -> Run:
    """Read a run.

    Raises:
        RunBroken: the file is not a valid run.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Run)
    except (OSError, msgspec.DecodeError) as exc:
        raise RunBroken(f"{path} is not a run of `evals run --output`: {exc}") from exc
