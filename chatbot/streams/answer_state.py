"""The states of an answer at its writer, and the events that are legal in each (pure).

The stage says whether this process still writes the answer, the log's state how much of it Redis has.
"""

from collections.abc import Mapping
from typing import Literal

Stage = Literal["writing", "broken", "finishing", "ended", "elsewhere"]
"""`broken`: a part could not be written, so it was dropped and the answer ends in an error; `finishing`: this process
settles and records it, so it is not handed over; `ended`: its last event is published; `elsewhere`: another replica
writes it, or will."""
StageEvent = Literal["confirm", "fail", "end", "leave"]
"""`confirm`: the log has how the answer ends; `fail`: it cannot be written as it is; `end`: its last event is
published; `leave`: this process stops writing it."""
LogState = Literal["whole", "behind", "deleted"]
"""`behind`: it lacks published events; `deleted`: by the customer, which is final."""

STAGES: Mapping[Stage, Mapping[StageEvent, Stage]] = {
    "writing": {"confirm": "finishing", "fail": "broken", "end": "ended", "leave": "elsewhere"},
    "broken": {"confirm": "broken", "fail": "broken", "end": "ended", "leave": "elsewhere"},
    "finishing": {"confirm": "finishing", "fail": "broken", "end": "ended", "leave": "elsewhere"},
    # The work of an answer that broke may still be settling it; a successor may take over an end that no log has.
    "ended": {"confirm": "ended", "leave": "elsewhere"},
    "elsewhere": {"confirm": "elsewhere", "leave": "elsewhere"},
}


class IllegalEvent(Exception):
    """An event that is illegal in this stage: a bug, which ends this answer alone."""


def stage_after(stage: Stage, event: StageEvent) -> Stage:
    """Return the stage after an event.

    Raises:
        IllegalEvent: the table has no such transition.
    """
    if event not in STAGES[stage]:
        raise IllegalEvent(f"{event} in stage {stage}")
    return STAGES[stage][event]
