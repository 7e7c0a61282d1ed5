"""The states of an answer at its writer, and what may happen in each (pure).

The stage says who puts events and whether this process still writes them, the log's state what Redis has of them.
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
LogState = Literal["whole", "behind", "deleted", "given_up"]
"""`behind`: it lacks published events; `deleted`: by the customer; `given_up`: Redis cannot have one of this answer."""
LogEvent = Literal["append", "miss", "delete", "give_up"]

STAGES: Mapping[Stage, Mapping[StageEvent, Stage]] = {
    "writing": {"confirm": "finishing", "fail": "broken", "end": "ended", "leave": "elsewhere"},
    "broken": {"confirm": "broken", "fail": "broken", "end": "ended", "leave": "elsewhere"},
    "finishing": {"confirm": "finishing", "fail": "broken", "end": "ended", "leave": "elsewhere"},
    # The work of an answer that broke may still be settling it; a successor may take over an end that no log has.
    "ended": {"confirm": "ended", "leave": "elsewhere"},
    "elsewhere": {"confirm": "elsewhere", "leave": "elsewhere"},
}
LOG_STATES: Mapping[LogState, Mapping[LogEvent, LogState]] = {
    "whole": {"append": "whole", "miss": "behind", "delete": "deleted", "give_up": "given_up"},
    "behind": {"append": "whole", "miss": "behind", "delete": "deleted", "give_up": "given_up"},
    # The reply to an append may come behind the heartbeat's that the answer is deleted.
    "deleted": {"append": "deleted", "miss": "deleted", "delete": "deleted", "give_up": "deleted"},
    "given_up": {"miss": "given_up", "delete": "deleted", "give_up": "given_up"},
}


class IllegalEvent(Exception):
    """An event that may not happen in this state: a bug, which ends this answer alone."""


def stage_after(stage: Stage, event: StageEvent) -> Stage:
    """Return the stage after an event.

    Raises:
        IllegalEvent: nothing of this stage may lead to it.
    """
    if event not in STAGES[stage]:
        raise IllegalEvent(f"{event} of an answer that is {stage}")
    return STAGES[stage][event]


def log_after(log: LogState, event: LogEvent) -> LogState:
    """Return the log's state after an event.

    Raises:
        IllegalEvent: nothing of this state may lead to it.
    """
    if event not in LOG_STATES[log]:
        raise IllegalEvent(f"{event} of a log that is {log}")
    return LOG_STATES[log][event]
