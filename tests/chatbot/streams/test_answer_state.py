"""The states of an answer: every event in every state, legal or not."""

from typing import get_args

import pytest

from chatbot.streams.answer_state import STAGES, Stage, StageEvent

ILLEGAL = {("ended", "end"), ("elsewhere", "end")}


@pytest.mark.parametrize("event", get_args(StageEvent))
@pytest.mark.parametrize("stage", get_args(Stage))
def test_every_event_leads_to_a_stage_or_is_illegal(stage: Stage, event: StageEvent) -> None:
    assert (event in STAGES[stage]) is ((stage, event) not in ILLEGAL)
    assert set(STAGES[stage].values()) <= set(get_args(Stage))


def reachable(first: str, table: dict[str, dict[str, str]]) -> set[str]:
    found, new = {first}, {first}
    while new:
        new = {after for state in new for after in table[state].values()} - found
        found |= new
    return found


def test_every_state_is_reached_and_none_is_left_out_of_the_table() -> None:
    stages = {str(stage): {str(e): str(s) for e, s in events.items()} for stage, events in STAGES.items()}
    assert reachable("writing", stages) == set(get_args(Stage))


def test_what_left_this_process_or_ended_is_never_written_here_again() -> None:
    stages = {str(stage): {str(e): str(s) for e, s in events.items()} for stage, events in STAGES.items()}
    assert reachable("elsewhere", stages) == {"elsewhere"}
    assert reachable("ended", stages) == {"ended", "elsewhere"}
