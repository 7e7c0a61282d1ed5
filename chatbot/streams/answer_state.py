"""The states of an answer at its writer, and the events that are legal in each (pure).

The stage says whether this process still writes the answer, the log's state how much of it Redis has.
"""

from collections.abc import Mapping
from typing import Literal

Stage = Literal["writing", "finishing", "ended", "elsewhere"]
"""`finishing`: this process settles and records the answer, so it is not handed over; `ended`: its last event is
published; `elsewhere`: another replica writes it, or will."""
StageEvent = Literal["confirm", "end", "leave"]
"""`confirm`: the log has the outcome; `end`: its last event is published; `leave`: this process stops writing
it."""
LogState = Literal["whole", "behind", "deleted"]
"""`behind`: it lacks published events; `deleted`: by the customer, which is final."""

STAGES: Mapping[Stage, Mapping[StageEvent, Stage]] = {
    "writing": {"confirm": "finishing", "end": "ended", "leave": "elsewhere"},
    "finishing": {"confirm": "finishing", "end": "ended", "leave": "elsewhere"},
    # This process still settles an answer that ended in an error. A successor may take over one whose end is unlogged.
    "ended": {"confirm": "ended", "leave": "elsewhere"},
    "elsewhere": {"confirm": "elsewhere", "leave": "elsewhere"},
}
"""The stage after an event; one that is missing is illegal in the stage: a bug, which ends this answer alone."""
