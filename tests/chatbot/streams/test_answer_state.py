"""The states of an answer at its writer."""

from chatbot.streams.answer_state import STAGES, Stage


def reachable(first: Stage) -> set[Stage]:
    found, new = {first}, {first}
    while new:
        new = {after for state in new for after in STAGES[state].values()} - found
        found |= new
    return found


def test_what_left_this_process_or_ended_is_never_written_here_again() -> None:
    assert reachable("writing") == set(STAGES)
    assert reachable("elsewhere") == {"elsewhere"}
    assert reachable("ended") == {"ended", "elsewhere"}
    assert "end" not in [*STAGES["ended"], *STAGES["elsewhere"]]
