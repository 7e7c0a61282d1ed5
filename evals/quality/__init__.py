"""The quality report: runs, recordings, gates, calibration, drift, and feedback turned into questions."""

from evals.quality import drift, report
from evals.quality.adopt import NotAdopted, adopt
from evals.quality.answer import LONGEST_ANSWER, Customer, read_events
from evals.quality.answer_checks import checked_answer
from evals.quality.calibrate import (
    Bars,
    CalibrationResult,
    Case,
    NotCalibrated,
    calibrated,
    calibration_of,
    cases_of,
    judged,
    require_enough,
    require_fits,
    require_of_today,
    write_calibration,
)
from evals.quality.compare import NotComparable, compare, verdict
from evals.quality.dialogues import DialoguesSpec, hold_dialogues
from evals.quality.gate import gate_run
from evals.quality.golive import figure_lines, go_live_page
from evals.quality.left_out import best_threshold, left_out_table
from evals.quality.page import page
from evals.quality.record import OwnBank, open_model, own_bank, record
from evals.quality.rescore import CheckSettings
from evals.quality.retrieve import rank
from evals.quality.run import RunningChatbot, RunSpec, evaluate, loaded_corpus, progress_bar
from evals.quality.server_index import ServerNotEmpty
from evals.quality.summary import Measures, Row, Run, RunBroken, read_run, rounded, summarise, write_run
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
    "Bars",
    "CalibrationResult",
    "Case",
    "CheckSettings",
    "Customer",
    "DialoguesSpec",
    "Measures",
    "NotAdopted",
    "NotCalibrated",
    "NotComparable",
    "OwnBank",
    "Row",
    "Run",
    "RunBroken",
    "RunSpec",
    "RunningChatbot",
    "ServerNotEmpty",
    "TriageBroken",
    "TriageSettings",
    "adopt",
    "best_threshold",
    "calibrated",
    "calibration_of",
    "cases_of",
    "checked_answer",
    "compare",
    "drift",
    "evaluate",
    "figure_lines",
    "gate_run",
    "go_live_page",
    "hold_dialogues",
    "judged",
    "left_out_table",
    "loaded_corpus",
    "merge_decisions",
    "open_model",
    "own_bank",
    "page",
    "progress_bar",
    "rank",
    "read_cases",
    "read_events",
    "read_feedback",
    "read_run",
    "record",
    "report",
    "require_enough",
    "require_fits",
    "require_of_today",
    "rounded",
    "summarise",
    "verdict",
    "write_calibration",
    "write_cases",
    "write_run",
]
