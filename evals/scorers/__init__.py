"""Scores of answers and rankings, one module per measure, with confidence intervals."""

from evals.scorers.answers import holds_answer, mean
from evals.scorers.citations import score_citations
from evals.scorers.intervals import Interval, change, holm, intervals, share_interval
from evals.scorers.judgement import Judgement, judge_answer
from evals.scorers.ranking import score_rankings
from evals.scorers.speed import score_waits

__all__ = [
    "Interval",
    "Judgement",
    "change",
    "holds_answer",
    "holm",
    "intervals",
    "judge_answer",
    "mean",
    "score_citations",
    "score_rankings",
    "score_waits",
    "share_interval",
]
