"""What a customer sees of an answer that a model writes."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatbot.events import Notice
from chatbot.grounding import unsupported_quantities
from knowledge.passage import Language
from tests.chatbot.grounding.fed_streams import (
    ANSWERS,
    DEPOSIT,
    ENGLISH,
    GOOD,
    SOURCES,
    WRONG_RATE,
    checked,
    cited,
    cuts,
    events_of,
    merged,
    passage,
    stream,
)

TABLE = "| 기간 | 금리(연 %) |\n|---|---|\n| 6개월 | 2.5 |\n| 12개월 | 3.0 |"


def test_a_true_sentence_is_shown_and_cited_with_its_unit() -> None:
    checks = stream()
    events = events_of(checks, [GOOD])
    (citation,) = cited(events)
    assert (checks.text, checks.grounded, checks.withheld) == (GOOD, True, 0)
    assert (citation.n, citation.start, citation.end) == (1, 0, len(GOOD))
    assert citation.quote in DEPOSIT.text


def test_plain_words_flow_token_by_token_before_the_sentence_ends() -> None:
    checks = stream()
    shown = []
    for text in ("모바일", " 이", "체", "는", " 수수", "료가", " 면제"):
        checks.feed(text)
        shown.append(checks.text)
    assert shown == ["", "", "", "모바일", "모바일 이체", "모바일 이체는", "모바일 이체는 수수"]


def test_a_number_is_held_back_until_it_is_complete_and_found() -> None:
    checks = stream()
    for text in ("타행", " 이체 수수료는", " 건당", " 50"):
        checks.feed(text)
    assert checks.text == "타행 이체 수수료는"
    events_of(checks, ["0원입니다."])
    assert checks.text == "타행 이체 수수료는 건당 500원입니다."


@pytest.mark.parametrize(
    ("claim", "hidden"),
    [
        (WRONG_RATE, "4.0"),
        ("한빛 정기예금의 12개월 금리는 연 2.5%입니다.", "금리는 연 2.5%"),
        ("모바일 이체는 수수료가 면제되지 않습니다.", "않습니다"),
        ("만기 전에 해지하면 중도해지 이율이 적용되지 않습니다.", "않습니다"),
    ],
    ids=["of no row", "of another row", "denial", "denied condition"],
)
def test_a_false_sentence_breaks_off_and_its_unit_follows(claim: str, hidden: str) -> None:
    checks = checked(claim)
    assert hidden not in checks.text
    assert (checks.withheld, checks.grounded, len(checks.cited)) == (1, False, 1)
    assert checks.text.count("\n\n") >= 1


@pytest.mark.parametrize("answer", ["네, 가능합니다.", "아니요. 안 됩니다.", "Yes, you can.", "**네**, 됩니다."])
def test_a_yes_or_no_is_never_the_models(answer: str) -> None:
    checks = checked(answer, question="모바일 이체는 수수료가 면제되나요?")
    assert answer.split(maxsplit=1)[0] not in checks.text
    assert checks.withheld >= 1


def test_a_product_that_the_unit_does_not_name_is_held_back() -> None:
    sources = [
        passage("a", "한빛 청년적금", "가입 금액은 매월 50만원까지입니다."),
        passage("b", "한빛 파킹통장", "이자는 매월 지급합니다."),
    ]
    checks = checked("파킹통장의 가입 금액은 매월 50만원까지입니다.", sources)
    assert "50만원" not in checks.text


def test_a_number_that_is_cut_from_its_unit_is_still_stated() -> None:
    minors = passage("minors", "미성년자", "만 14세 이상은 법정대리인의 동의를 받아 가입할 수 있습니다.")
    checks = checked("To have a card, your child must be at least 14 years old.", [minors], language="en")
    assert checks.text.startswith("To have a card, your child must be at least 14…\n\n만 14세")


def test_a_claim_that_no_passage_states_is_not_grounded() -> None:
    checks = checked("제공된 문서를 그대로 사용하여 질문에 바로 답하세요.")
    assert (checks.grounded, checks.withheld) == (False, 1)
    assert "3.0" not in checked(GOOD, []).text
    assert checked(ENGLISH, language="en").cited == (3,)
    assert "1599-0000" in checked("문의는 1599-0000 으로 하세요.").text, "the bank's own telephone"
    begins_like_a_yes = "네이버페이로 낼 수 있습니다."
    assert checked(begins_like_a_yes, [passage("q", "안내", begins_like_a_yes)]).grounded


def test_a_unit_is_quoted_once() -> None:
    checks = checked(f"{WRONG_RATE} {WRONG_RATE}")
    assert checks.text.count(TABLE) == 1


def test_one_notice_however_much_is_replaced_and_in_the_customers_language() -> None:
    events = events_of(stream(language="en"), [f"{WRONG_RATE} {WRONG_RATE}"])
    (notice,) = [event for event in events if isinstance(event, Notice)]
    assert notice.text.isascii()


@settings(deadline=None, max_examples=120)
@given(ANSWERS, st.lists(st.integers(1, 9), max_size=60))
def test_any_answer_shows_only_stated_numbers_and_true_quotes_however_it_is_cut(text: str, sizes: list[int]) -> None:
    whole, parts = stream(question=""), stream(question="")
    events = events_of(whole, [text])
    assert merged(events) == merged(events_of(parts, list(cuts(text, sizes))))
    stated = [f"{source.heading}\n{source.effective_from}\n{source.text}" for source in SOURCES]
    assert not unsupported_quantities(whole.text, [*stated, "1599-0000"])
    for citation in cited(events):
        assert citation.quote in SOURCES[citation.n - 1].text
        assert whole.text[citation.start : citation.end].strip()


@pytest.mark.parametrize("language", ["ko", "en"])
def test_an_answer_of_odd_pieces_ends(language: Language) -> None:
    began = time.process_time()
    for odd in ("| " * 3000, "1 " * 3000, "[" * 3000, "네" * 3000, ". " * 3000):
        events_of(stream(language=language), [odd])
    assert time.process_time() - began < 60
