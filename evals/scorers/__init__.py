"""Scores of answers and rankings, one module for each measure, with their intervals."""

from evals.scorers.answers import answer_f1, answers_rightly, holds_answer, mean
from evals.scorers.citations import score_citations
from evals.scorers.intervals import Interval, change, holm, intervals, share_interval
from evals.scorers.numbers_shown import check_numbers
from evals.scorers.ranking import RankingScore, score_rankings
from evals.scorers.refusals import score_refusals
from evals.scorers.speed import score_waits

__all__ = [
    "Interval",
    "RankingScore",
    "answer_f1",
    "answers_rightly",
    "change",
    "check_numbers",
    "holds_answer",
    "holm",
    "intervals",
    "mean",
    "score_citations",
    "score_rankings",
    "score_refusals",
    "score_waits",
    "share_interval",
]
