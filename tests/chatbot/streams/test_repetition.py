"""A successor says everything again: what the log has is dropped, wherever its writer died."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatbot.events import Citation, Done, Event, FinishReason, Notice, NoticeCode, Queued, Token, Usage
from chatbot.streams.repetition import Diverged, RepetitionCheck
from tests.chatbot.grounding.fed_streams import ANSWERS, events_of, merged, stream


def pieces(text: str, cuts: list[int]) -> list[str]:
    ends, at = [], 0
    for cut in cuts:
        at += cut
        ends.append(at)
    return [text[start:end] for start, end in zip([0, *ends], [*ends, len(text)], strict=True)]


@settings(deadline=None)
@given(ANSWERS, st.lists(st.integers(1, 7), max_size=80), st.integers(0, 80))
def test_a_successor_completes_the_same_answer(text: str, cuts: list[int], died: int) -> None:
    feeds = pieces(text, cuts)
    before, checks = stream(), stream()
    logged = [event for feed in feeds[:died] for event in before.feed(feed)]
    repetition = RepetitionCheck(logged)
    shown = [*logged, *repetition.new_events(checks.feed("".join(feeds[:died])))]
    for feed in feeds[died:]:
        shown += repetition.new_events(checks.feed(feed))
    shown += repetition.new_events(checks.close())
    assert repetition.complete
    assert merged(shown) == merged(events_of(stream(), [text]))


def citation(n: int) -> Citation:
    return Citation(n=n, start=0, end=3, document_id="d", version=1, page=None, quote="q")


def test_queue_places_and_switches_are_not_repeated() -> None:
    switched = Notice(code=NoticeCode.MODEL_SWITCHED, text="")
    repetition = RepetitionCheck([Queued(position=3, estimated_wait_ms=10), switched, Token(text="one")])
    queued = Queued(position=1, estimated_wait_ms=5)
    assert repetition.new_events([queued, Token(text="one")]) == [queued]


@pytest.mark.parametrize(
    "repeated",
    [
        [Token(text="other")],
        [citation(2)],
        [Token(text="one "), citation(1)],
        [Token(text="one two"), citation(2)],
        [Notice(code=NoticeCode.MASKED, text="")],
    ],
)
def test_a_successor_with_another_text_is_stopped(repeated: list[Event]) -> None:
    with pytest.raises(Diverged):
        RepetitionCheck([Token(text="one two"), citation(1)]).new_events(repeated)


def test_a_notice_is_repeated_by_its_code() -> None:
    masked, withheld = (Notice(code=code, text="") for code in (NoticeCode.MASKED, NoticeCode.WITHHELD))
    assert RepetitionCheck([masked]).new_events([masked]) == []
    with pytest.raises(Diverged):
        RepetitionCheck([masked]).new_events([withheld])
    done = Done(finish_reason=FinishReason.CANCELLED, usage=Usage(), grounded=False, limits=None)
    assert RepetitionCheck([Token(text="one")]).new_events([done]) == [done]
