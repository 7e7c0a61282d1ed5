"""The quality report: runs, recordings, gates, calibration, drift, and feedback made into questions."""

from evals.quality import drift, report
from evals.quality.adopt import NotAdopted, adopt
from evals.quality.answer import LONGEST_ANSWER, Customer, frames
from evals.quality.calibrate import fitted, probe, read_probes, write_probes
from evals.quality.compare import NotComparable, compare, verdict
from evals.quality.gate import gated
from evals.quality.page import page
from evals.quality.record import Recorder, checked, record
from evals.quality.run import Against, Errand, bar, loaded, run_errand
from evals.quality.summary import Measures, Row, Run, RunBroken, read_run, rounded, write_run
from evals.quality.triage import DAY, TriageBroken, TriageSettings, bring, merged, read_cases, write_cases

__all__ = [
    "DAY",
    "LONGEST_ANSWER",
    "Against",
    "Customer",
    "Errand",
    "Measures",
    "NotAdopted",
    "NotComparable",
    "Recorder",
    "Row",
    "Run",
    "RunBroken",
    "TriageBroken",
    "TriageSettings",
    "adopt",
    "bar",
    "bring",
    "checked",
    "compare",
    "drift",
    "fitted",
    "frames",
    "gated",
    "loaded",
    "merged",
    "page",
    "probe",
    "read_cases",
    "read_probes",
    "read_run",
    "record",
    "report",
    "rounded",
    "run_errand",
    "verdict",
    "write_cases",
    "write_probes",
    "write_run",
]
