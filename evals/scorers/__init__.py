"""Scores of answers and rankings, one module for each measure, with their intervals."""

from evals.scorers.answers import answer_f1, holds_answer, mean
from evals.scorers.citations import score_citations
from evals.scorers.intervals import Interval, change, holm, intervals, share_interval
from evals.scorers.judgement import Judgement, judge_answer
from evals.scorers.numbers_shown import check_numbers
from evals.scorers.ranking import RankingScore, score_rankings
from evals.scorers.refusals import score_refusals
from evals.scorers.speed import score_waits

__all__ = [
    "Interval",
    "Judgement",
    "RankingScore",
    "answer_f1",
    "change",
    "check_numbers",
    "holds_answer",
    "holm",
    "intervals",
    "judge_answer",
    "mean",
    "score_citations",
    "score_rankings",
    "score_refusals",
    "score_waits",
    "share_interval",
]
