"""Strict grounding shows the passage's own sentence where a claim turns it: no falsification reaches a customer."""

import random

import pytest

from chatbot.grounding.boilerplate import is_refusal
from chatbot.grounding.departures import is_out_of_order, new_words, turning_words
from chatbot.grounding.stems import features
from evals.questions import falsified
from knowledge.passage import Passage
from tests.chatbot.grounding.fed_streams import checked, passage

KOREAN = passage(
    "limits",
    "이체 한도",
    "개인 고객은 앱에서 하루 최대 5,000,000원까지 이체할 수 있습니다. "
    "한도를 올리려면 영업점에서 본인 확인을 해야 합니다. "
    "법인은 만기 이전에 전부 해지할 수 없습니다. "
    "수수료는 월 300원 이상이며 고객이 은행에 냅니다. 매월 15일에 결제됩니다.",
)
ENGLISH = passage(
    "cards",
    "Check card",
    "You can withdraw at most KRW 1,000,000 a day at a branch. All replacement cards must be ordered before 18:00. "
    "The card cannot be used without a PIN. The monthly fee is KRW 300 and is waived for 12 months.",
    "en",
)
OTHER = passage("other", "기타", "통장은 영업점에서 만듭니다. The bank opens at 9:00.")


def sentences(text: str) -> list[str]:
    return [f"{part.strip()}." for part in text.split(". ") for part in [part.rstrip(".")]]


@pytest.mark.parametrize("own", [KOREAN, ENGLISH], ids=["Korean", "English"])
def test_no_falsification_of_a_sentence_is_shown(own: Passage) -> None:
    kinds = set()
    for sentence in sentences(own.text):
        others = [other for other in sentences(own.text) if other != sentence]
        for one in falsified(sentence, others, random.Random(1)):  # noqa: S311  a draw
            kinds.add(one.kind)
            checks = checked(one.false, (own, OTHER), question="알려 주세요", language=own.language)
            assert one.false.rstrip(".") not in checks.text, one
    assert len(kinds) >= 10


@pytest.mark.parametrize("own", [KOREAN, ENGLISH], ids=["Korean", "English"])
def test_a_true_sentence_is_shown_as_it_is(own: Passage) -> None:
    for sentence in sentences(own.text):
        assert checked(sentence, (own, OTHER), question="알려 주세요", language=own.language).text == sentence


def test_the_passage_s_sentence_stands_for_one_that_turns_it() -> None:
    checks = checked("법인은 만기 이전에 전부 해지할 수 있습니다.", (KOREAN,), question="법인은 언제 해지하나요?")
    assert checks.text == "법인은 만기 이전에 전부 해지할 수 없습니다."
    assert checks.grounded


def test_a_part_of_a_sentence_may_leave_words_out() -> None:
    text = "The monthly fee is waived for 12 months."
    assert checked(text, (ENGLISH,), question="How long is it waived?", language="en").text


FEES = passage(
    "fees",
    "송금 안내",
    "당행 이체는 300원, 타행 이체는 500원입니다. 교통카드 기능은 신용카드에 제공되며 체크카드에는 제공되지 않습니다. "
    "미성년자는 법정대리인의 동의를 받으면 카드를 발급받을 수 있습니다.\n\n"
    "| 통화 | 송금 수수료(원) | 전신료(원) |\n|---|---|---|\n| 달러 | 5,000 | 8,000 |\n| 유로 | 7,000 | 9,000 |",
)


@pytest.mark.parametrize(
    "claim",
    [
        "당행 이체는 500원, 타행 이체는 300원입니다.",
        "타행 이체는 300원, 당행 이체는 500원입니다.",
        "교통카드 기능은 체크카드에 제공됩니다.",
        "미성년자는 카드를 발급받을 수 있습니다.",
        "| 달러 | 8,000 | 5,000 |\n",
        "| 유로 | 5,000 | 8,000 |\n",
        "달러 송금 수수료는 8,000원, 전신료는 5,000원입니다.",
    ],
    ids=["numbers", "names", "half a denial", "no condition", "cells", "label of a row", "prose of a row"],
)
def test_what_is_said_in_another_order_or_by_half_is_not_shown(claim: str) -> None:
    assert claim.strip().rstrip(".") not in checked(claim, (FEES, OTHER), question="알려 주세요").text


def test_a_number_of_another_sentence_is_not_shown_in_a_sentence_that_is_repeated() -> None:
    own = passage(
        "rate",
        "신용대출 금리",
        "변동금리는 은행채 6개월물 금리에 가산금리를 더해 정하며 6개월마다 바뀝니다. 재직 3개월이 지나면 신청합니다.",
    )
    checks = checked(
        "변동금리는 은행채 3개월물 금리에 가산금리를 더해 정하며 6개월마다 바뀝니다.", (own,), question="금리는요?"
    )
    assert "6개월물" in checks.text
    assert "3개월물" not in checks.text


def test_a_row_as_it_stands_is_shown() -> None:
    text = "달러 수수료는 다음과 같습니다.\n\n| 통화 | 송금 수수료(원) | 전신료(원) |\n| 달러 | 5,000 | 8,000 |\n"
    assert "| 달러 | 5,000 | 8,000 |" in checked(text, (FEES, OTHER), question="달러 수수료 알려 주세요").text


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("문서에는 카드 분실 시 신고하지 않아도 됩니다.", "카드 분실 시 신고해야 하나요?"),
        ("자료에 따르면 대출 중도상환 수수료는 없습니다.", "대출 중도상환 수수료가 있나요?"),
        ("The documents do not cover you, so no fee applies.", "Does a fee apply?"),
    ],
)
def test_a_fact_in_the_form_of_a_refusal_is_a_claim(text: str, question: str) -> None:
    assert not is_refusal(text, question)


def test_a_yes_does_not_stand_with_a_courtesy_alone() -> None:
    checks = checked("네. 고객센터로 문의해 주세요.", (FEES,), question="초등학생도 카드가 나오나요?")
    assert "네" not in checks.text


def test_texts_too_long_to_compare_count_as_out_of_order() -> None:
    words = [f"단어{chr(ord('가') + n)}" for n in range(101)]
    assert not is_out_of_order(" ".join(words[:99]), " ".join(words[:99]))
    assert is_out_of_order(" ".join(words), " ".join(words))


def test_turning_words_are_counted() -> None:
    assert turning_words("최대 3회, 최대 5회 이상") == {"최대": 2, "이상": 1}
    assert turning_words("You cannot pay more than that without a PIN") == {"cannot": 1, "more": 1, "without": 1}


def test_new_words_are_those_that_no_feature_of_the_passage_has() -> None:
    known = features("앱에서 가입하는 예금입니다")
    assert new_words("앱에서 가입한 예금은 카카오톡으로 신청합니다", known) == ["카카오톡", "신청"]
