"""Every degradation level tells the customer, honestly and in both languages, what answers."""

import pytest

from chatbot.events import NoticeCode
from chatbot.notices import DEGRADATION_LEVELS, TEXTS, DegradationLevel, degradation_notice, notice
from chatbot.records import AnswerResult
from knowledge.passage import LANGUAGES, Language


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_code_has_a_text_in_each_language(language: Language) -> None:
    degraded = {degradation_notice(level, language).code for level in DEGRADATION_LEVELS}
    assert {*TEXTS, *degraded} == set(NoticeCode)
    texts = [notice(code, language).text for code in TEXTS]
    assert len(set(texts)) == len(TEXTS)
    assert all(("가" <= text[0] <= "힣") is (language == "ko") for text in texts)


def test_an_answer_counts_for_the_lowest_level_it_reached() -> None:
    result = AnswerResult()
    for level, lowest in [("replica", "replica"), ("quoted", "quoted"), ("fallback", "quoted"), ("handoff", "handoff")]:
        result = result.degraded_to(DegradationLevel(level))
        assert result.degradation_level is DegradationLevel(lowest)
