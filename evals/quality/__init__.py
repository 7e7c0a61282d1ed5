"""The quality report: runs, recordings, gates, calibration, drift, and feedback turned into questions."""

from evals.quality import drift, report
from evals.quality.adopt import NotAdopted, adopt
from evals.quality.answer import LONGEST_ANSWER, Customer, read_events
from evals.quality.answer_checks import checked_answer
from evals.quality.calibrate import fit_report, probe_answerability, read_probes, write_probes
from evals.quality.compare import NotComparable, compare, verdict
from evals.quality.gate import gate_run
from evals.quality.page import page
from evals.quality.record import record
from evals.quality.run import RunningChatbot, RunSpec, evaluate, loaded_corpus, progress_bar
from evals.quality.summary import Measures, Row, Run, RunBroken, read_run, rounded, write_run
from evals.quality.triage import (
    DAY,
    TriageBroken,
    TriageSettings,
    merge_decisions,
    read_cases,
    read_feedback,
    write_cases,
)

__all__ = [
    "DAY",
    "LONGEST_ANSWER",
    "Customer",
    "Measures",
    "NotAdopted",
    "NotComparable",
    "Row",
    "Run",
    "RunBroken",
    "RunSpec",
    "RunningChatbot",
    "TriageBroken",
    "TriageSettings",
    "adopt",
    "checked_answer",
    "compare",
    "drift",
    "evaluate",
    "fit_report",
    "gate_run",
    "loaded_corpus",
    "merge_decisions",
    "page",
    "probe_answerability",
    "progress_bar",
    "read_cases",
    "read_events",
    "read_feedback",
    "read_probes",
    "read_run",
    "record",
    "report",
    "rounded",
    "verdict",
    "write_cases",
    "write_probes",
    "write_run",
]
