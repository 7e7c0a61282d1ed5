from dataclasses import replace

import pytest

from knowledge.glossary import Glossary
from knowledge.query_term_coverage import Coverage
from knowledge.terms import Terms
from tests.knowledge.conftest import BANK

DEPOSIT = replace(BANK, title="한빛 정기예금", section="금리", text="12개월 금리는 연 2.80%입니다.")
LOST = replace(BANK, title="Cards", section="", text="A lost card is blocked; the replacement fee is KRW 2,000.")


@pytest.fixture
def coverage(terms: Terms) -> Coverage:
    return Coverage(terms, Glossary([["주담대", "주택담보대출"], ["이율", "금리"]]), ["한빛은행", "Hanbit Bank"])


@pytest.mark.parametrize(
    ("question", "unknown"),
    [
        ("정기예금 금리가 얼마예요?", 0.0),
        ("정기예금 이율이 얼마예요?", 0.0),  # another word for it
        ("한빛은행 정기예금 금리", 0.0),  # the bank's own name is not a topic
        ("골드바 금리", 0.5),
        ("할머니 정기예금", 0.0),  # nor is the person who asks
        ("얼마예요?", 0.0),
    ],
)
def test_the_unknown_share_of_a_question(coverage: Coverage, question: str, unknown: float) -> None:
    assert coverage.unknown_share(question, [DEPOSIT]) == pytest.approx(unknown, abs=0.2 if unknown else 0)


def test_one_passage_must_name_every_topic_by_itself(coverage: Coverage) -> None:
    assert coverage.unknown_share("lost card fee", [DEPOSIT, LOST]) == 0
    assert coverage.unknown_share("lost 정기예금", [DEPOSIT, LOST]) == pytest.approx(1 / 3)  # 정기, 예금 and lost


def test_without_passages_everything_is_unknown(coverage: Coverage) -> None:
    assert coverage.unknown_share("정기예금", []) == 1
    assert coverage.unknown_share("얼마예요?", []) == 0
