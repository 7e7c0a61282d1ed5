"""Measures of a ranking: nDCG@10, recall@5 and the reciprocal rank, by trec_eval (pure)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pytrec_eval

_MEASURES = {"ndcg_cut.10", "recall.5", "recip_rank"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RankingScore:
    """The measures of one question."""

    ndcg_at_10: float
    recall_at_5: float
    reciprocal_rank: float


def score_rankings(
    rankings: Mapping[str, Sequence[str]], relevant: Mapping[str, Mapping[str, int]]
) -> dict[str, RankingScore]:
    """Return the scores of every ranked question that has relevant entries; an empty ranking scores 0."""
    judged = {
        query: dict(entries) for query, entries in relevant.items() if query in rankings and any(entries.values())
    }
    # Scores that fall with the rank: trec_eval breaks ties by name, and a ranking has no ties.
    run = {query: {entry: 1.0 / n for n, entry in enumerate(rankings[query], 1)} for query in judged}
    evaluator = pytrec_eval.RelevanceEvaluator(judged, _MEASURES)
    evaluated = evaluator.evaluate({query: entries for query, entries in run.items() if entries})
    nothing = {"ndcg_cut_10": 0.0, "recall_5": 0.0, "recip_rank": 0.0}
    scores = {query: evaluated.get(query, nothing) for query in judged}
    return {
        query: RankingScore(
            ndcg_at_10=score["ndcg_cut_10"], recall_at_5=score["recall_5"], reciprocal_rank=score["recip_rank"]
        )
        for query, score in scores.items()
    }
