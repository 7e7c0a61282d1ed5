"""The scorers on small cases whose right result was worked out by hand."""

import math
from collections.abc import Mapping, Sequence

import pytest

from chatbot.events import Citation
from evals.questions import CustomerAnswer
from evals.scorers.answers import holds_answer
from evals.scorers.citations import score_citations
from evals.scorers.intervals import Interval, share_interval
from evals.scorers.ranking import score_rankings


def test_a_ranking_is_scored_as_trec_eval_does() -> None:
    relevant = {"q": {"a": 1, "b": 1, "never-found": 1}, "unanswerable": {}}
    scores = score_rankings({"q": ["x", "a", "y", "b"], "unanswerable": ["a"]}, relevant)
    assert scores.keys() == {"q"}
    dcg = 1 / math.log2(3) + 1 / math.log2(5)
    ideal = 1 + 1 / math.log2(3) + 1 / math.log2(4)
    assert scores["q"] == pytest.approx({"ndcg@10": dcg / ideal, "recall@5": 2 / 3, "mrr": 1 / 2})


@pytest.mark.parametrize(("hits", "low", "high"), [(10, 0.7225, 1.0), (5, 0.2366, 0.7634), (0, 0.0, 0.2775)])
def test_a_share_has_an_interval_also_where_every_row_is_a_hit(hits: int, low: float, high: float) -> None:
    assert share_interval(hits, 10) == Interval(low=low, high=high)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("최소 1,000,000원부터 됩니다", "100만원"),
        ("연 2.70%입니다", "2.7%"),
        ("up to USD 50,000 a year", "$50,000"),
        ("2025년 9월 1일부터", "2025-09-01"),
        ("만기 1 개월 이내", "만기 1개월 이내"),
        ("the Application Receipt", "application receipt"),
        ("가입 기간은 1년입니다", "12개월"),
        ("ATM에서 됩니다", "ATM"),
        ("two branches are open", "branch"),
    ],
)
def test_an_answer_is_found_in_any_spelling(text: str, answer: str) -> None:
    assert holds_answer(text, ["something else", answer])


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("연 12.7%", "2.7%"),
        ("50,0001원", "50,000"),
        ("없습니다", "100만원"),
        ("anything", ""),
        ("nothing is charged", "no"),
        ("a prepayment is possible", "payment"),
    ],
)
def test_part_of_another_number_or_word_is_no_answer(text: str, answer: str) -> None:
    assert not holds_answer(text, [answer])


def citing(*documents: str, quote: str = "", cited: Mapping[int, str] | None = None) -> CustomerAnswer:
    citations = tuple(
        Citation(n=n, start=0, end=1, document_id=document, version=1, page=None, quote=quote)
        for n, document in enumerate(documents, 1)
    )
    return CustomerAnswer(
        id="q",
        text="",
        finish_reason="stop",
        grounded=True,
        sources=(),
        citations=citations,
        cited=cited or {},
        notices=(),
        first_token_seconds=None,
        seconds=1.0,
        prompt_tokens=1,
        answer_tokens=1,
    )


@pytest.mark.parametrize(
    ("answer", "answers", "right", "holds"),
    [
        (citing("a", "x", quote="2,000 won"), ["2,000원", "2,000 won"], 0.5, True),
        (citing("a", cited={1: "a card costs 2,000 won"}), ["2,000 won"], 1.0, True),
        (citing("x", quote="2,000 won"), ["2,000 won"], 0.0, False),
        (citing("a", quote="free"), ["2,000 won"], 1.0, False),
        (citing("a"), [], 1.0, True),
        (citing(), ["2,000 won"], 0.0, False),
    ],
)
def test_a_citation_counts_when_its_document_is_right_and_holds_the_answer(
    answer: CustomerAnswer, answers: Sequence[str], *, right: float, holds: bool
) -> None:
    score = score_citations(answer, {"a", "b"}, answers)
    assert (score.right, score.holds_answer) == (right, holds)
