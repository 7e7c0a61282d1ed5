"""The states of an answer in a process, and the events that are legal in each (pure).

The stage shows whether this process still writes the answer; the log state shows how much of it Redis has.
"""

from collections.abc import Mapping
from typing import Literal

Stage = Literal["writing", "finishing", "ended", "elsewhere"]
"""`finishing`: this process settles and records the answer, so it is not handed over; `ended`: its last event is
published; `elsewhere`: another replica writes it or will write it."""
StageEvent = Literal["confirm", "end", "leave"]
"""`confirm`: this process still owns the answer and finishes it; `end`: the last event is published; `leave`: this
process stops writing."""
LogState = Literal["whole", "behind", "deleted"]
"""`whole`: the log has every published event; `behind`: it lacks some; `deleted`: the customer deleted it (final)."""

STAGES: Mapping[Stage, Mapping[StageEvent, Stage]] = {
    "writing": {"confirm": "finishing", "end": "ended", "leave": "elsewhere"},
    "finishing": {"confirm": "finishing", "end": "ended", "leave": "elsewhere"},
    # `confirm`: an answer that `fail` has ended is still settled here.
    # `leave`: a successor may take it over if its end is not logged.
    "ended": {"confirm": "ended", "leave": "elsewhere"},
    "elsewhere": {"confirm": "elsewhere", "leave": "elsewhere"},
}
"""The stage after each event. An event that is missing is illegal in that stage: a bug, which ends only this answer."""
