"""Which sentence an answer may begin with, and how sentences are ranked."""

from dataclasses import replace

import pytest

from chatbot.grounding.evidence import Quote
from chatbot.grounding.quotes import QuoteCandidates, quoted_answer
from chatbot.grounding.stream import GroundingMode
from tests.chatbot.grounding.fed_streams import DEPOSIT, FEES, GOOD, SOURCES, among_others, events_of, stream

AGE = "한빛 정기예금은 만 19세 이상 개인이 가입할 수 있습니다."
TERM = "가입 기간은 6개월 이상 36개월 이하입니다."
QUESTION = "정기예금은 누가 가입할 수 있나요?"


def candidates() -> QuoteCandidates:
    return QuoteCandidates.of(QUESTION, SOURCES)


def test_without_the_embedder_the_words_decide() -> None:
    assert candidates().ranked()[0] == Quote(1, AGE)
    assert QuoteCandidates.of("zzz qqq", SOURCES).ranked() == ()


def test_the_embedder_changes_the_order_of_what_the_words_leave_close() -> None:
    found = candidates()
    texts = [quote.text for _, quote in found.scored]
    likes = [1.0 if text == TERM else 0.0 for text in texts]
    by_words = [quote.text for quote in found.ranked([0.5] * len(texts))]
    assert by_words == texts, "an embedder that tells nothing apart changes nothing"
    assert [quote.text for quote in found.ranked(likes)].index(TERM) < by_words.index(TERM)


def test_a_candidate_is_compared_as_its_passage_cut_to_it() -> None:
    found = candidates()
    assert found.excerpts == tuple(replace(SOURCES[quote.n - 1], text=quote.text) for _, quote in found.scored)
    assert len(found.scored) <= 8
    assert all(len(quote.text) >= 8 for _, quote in found.scored)


def test_at_most_three_sentences_are_quoted_in_the_order_of_their_rank() -> None:
    ranked = candidates().ranked([float(-n) for n in range(len(candidates().scored))])
    answer = quoted_answer(QUESTION, ranked, [among_others(source) for source in SOURCES])
    assert [citation.quote for citation in answer.citations] == [quote.text for quote in ranked[:3]]


def test_a_short_passage_is_quoted_whole_in_place_of_its_sentences() -> None:
    steps = replace(
        FEES, text="## 재발급\n1. 앱을 엽니다.\n2. 재발급을 누릅니다.\n3. 수수료 2,000원을 냅니다.\n※ 평일만 됩니다."
    )
    ranked = (Quote(1, "2. 재발급을 누릅니다."), Quote(2, AGE), Quote(1, "1. 앱을 엽니다."))
    answer = quoted_answer("카드 재발급은 어떻게 하나요?", ranked, (steps, among_others(DEPOSIT)))
    assert [citation.quote for citation in answer.citations] == [steps.text.removeprefix("## 재발급\n"), AGE]
    assert all(answer.text[citation.start : citation.end] == citation.quote for citation in answer.citations)
    longer = quoted_answer("카드 재발급은 어떻게 하나요?", ranked, (among_others(steps), DEPOSIT))
    assert [citation.quote for citation in longer.citations] == [quote.text for quote in ranked]


@pytest.mark.parametrize("before", ["", "안녕하세요, 고객님. "])
def test_an_answer_that_never_comes_to_the_leading_sentence_is_withheld(before: str) -> None:
    checks = stream(GroundingMode.STRICT, question=QUESTION, leading=[Quote(1, AGE)])
    events_of(checks, [before + TERM])
    assert (checks.text, checks.withheld_whole) == ("", True)
    other = stream(GroundingMode.STRICT, question=QUESTION, leading=[Quote(1, TERM)])
    events_of(other, [before + TERM])
    assert other.text == TERM


def test_what_comes_before_the_leading_sentence_waits_for_it() -> None:
    checks = stream(GroundingMode.STRICT, question=QUESTION, leading=[Quote(1, AGE)])
    assert not checks.feed(f"{TERM} 그")
    events_of(checks, [f"리고 {AGE} {GOOD}"])
    assert checks.text.startswith(TERM)
    assert AGE in checks.text
    assert GOOD in checks.text, "what follows needs to lead nothing"
    assert checks.grounded


def test_the_same_words_in_another_passage_do_not_lead() -> None:
    copy = replace(FEES, text=AGE)
    checks = stream(GroundingMode.STRICT, (copy, DEPOSIT), question=QUESTION, leading=[Quote(2, AGE)])
    events_of(checks, [TERM])
    assert checks.withheld_whole


@pytest.mark.parametrize("mode", [GroundingMode.NUMBERS, GroundingMode.OFF])
def test_other_modes_hold_nothing_back_for_it(mode: GroundingMode) -> None:
    checks = stream(mode, question=QUESTION, leading=[Quote(1, AGE)])
    events_of(checks, [TERM])
    assert checks.text == TERM
