"""Every rung of the ladder says what the customer gets, honestly and in both languages."""

import pytest

from chatbot.events import NoticeCode
from chatbot.notices import DEGRADATION_LEVELS, DegradationLevel, notice, notice_of
from chatbot.transcript import AnswerState
from knowledge.passage import LANGUAGES, Language


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_rung_has_a_notice_of_its_own(language: Language) -> None:
    told = [notice_of(rung, language) for rung in DEGRADATION_LEVELS]
    assert [n.code for n in told] == [NoticeCode.MODEL_SWITCHED] * 2 + [NoticeCode.DEGRADED] * 3
    assert len({n.text for n in told}) == len(DEGRADATION_LEVELS)
    assert all(("가" <= n.text[0] <= "힣") is (language == "ko") for n in told)


@pytest.mark.parametrize("language", LANGUAGES)
def test_who_gets_no_quotes_is_not_promised_any(language: Language) -> None:
    assert "word for word" not in notice_of(DegradationLevel.HANDOFF, language).text
    assert "그대로" not in notice_of(DegradationLevel.HANDOFF, language).text


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_other_notices_are_there(language: Language) -> None:
    assert notice(NoticeCode.MASKED, language).text != notice(NoticeCode.HISTORY_UNAVAILABLE, language).text


def test_an_answer_counts_for_the_lowest_rung_it_came_to() -> None:
    draft = AnswerState()
    for rung, lowest in [("replica", "replica"), ("cached", "cached"), ("fallback", "cached"), ("handoff", "handoff")]:
        draft.descend(DegradationLevel(rung))
        assert draft.rung is DegradationLevel(lowest)
