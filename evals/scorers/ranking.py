"""Ranking measures by trec_eval (pure)."""

from collections.abc import Mapping, Sequence

import pytrec_eval

MEASURES = {"ndcg@10": "ndcg_cut_10", "recall@5": "recall_5", "mrr": "recip_rank"}
"""trec_eval's name of each measure."""


def score_rankings(
    rankings: Mapping[str, Sequence[str]], relevant: Mapping[str, Mapping[str, int]]
) -> dict[str, dict[str, float]]:
    """Return the measures of each ranked question with relevant entries; an empty ranking scores 0."""
    judged = {
        query: dict(entries) for query, entries in relevant.items() if query in rankings and any(entries.values())
    }
    # Scores decrease with rank, because trec_eval would break ties by name.
    run = {query: {entry: 1.0 / n for n, entry in enumerate(rankings[query], 1)} for query in judged}
    evaluator = pytrec_eval.RelevanceEvaluator(judged, {"ndcg_cut.10", "recall.5", "recip_rank"})
    evaluated = evaluator.evaluate({query: entries for query, entries in run.items() if entries})
    return {
        query: {name: evaluated.get(query, {}).get(trec_name, 0.0) for name, trec_name in MEASURES.items()}
        for query in judged
    }
