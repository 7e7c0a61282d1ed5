"""The quality report: runs, recordings, gates, calibration and comparisons."""

from evals.quality import calibrate, compare, dialogues, gate, golive, record, report, run, summary
from evals.quality.answer import LONGEST_ANSWER, Customer
from evals.quality.rescore import checked_answer
from evals.quality.run import loaded_corpus

__all__ = [
    "LONGEST_ANSWER",
    "Customer",
    "calibrate",
    "checked_answer",
    "compare",
    "dialogues",
    "gate",
    "golive",
    "loaded_corpus",
    "record",
    "report",
    "run",
    "summary",
]
