"""Which unit answers: the search's own order, three corrections, and a model's choice where the first are close."""

from dataclasses import replace

import pytest

from chatbot.events import Citation, Token
from chatbot.quotes import NOT_CERTAIN, Candidate, introduced, is_close, posterior, rank
from knowledge.passage import Hit, Passage, language_of
from tests.chatbot.grounding.fed_streams import passage

OPENING = replace(passage("card", "카드 안내", "이 안내는 카드 분실을 다룹니다."), n=1)
REISSUE = replace(passage("card", "카드 안내", "재발급 수수료는 2,000원입니다."), n=2)
ENGLISH = passage("card-en", "Cards", "A replacement card costs KRW 2,000.", "en")


def ranked_for(question: str, hits: list[Hit]) -> tuple[Candidate, ...]:
    return rank(question, hits, language_of(question))


def hit(source: Passage, score: float) -> Hit:
    return Hit(passage=source, score=score, dense=0.9, terms=3.0)


def test_the_searchs_order_decides() -> None:
    ranked = ranked_for(
        "카드를 잃어버렸어요", [hit(REISSUE, 4.0), hit(replace(REISSUE, document_id="b", text="다른 글입니다."), 2.0)]
    )
    assert [unit.n for unit in ranked] == [1, 2]
    assert not is_close(ranked)


def test_an_opening_gives_way_to_a_section_with_the_number_that_is_asked_for() -> None:
    ranked = ranked_for("재발급 수수료는 얼마예요?", [hit(OPENING, 4.0), hit(REISSUE, 3.6)])
    assert ranked[0].text == REISSUE.text


def test_a_passage_in_the_questions_language_comes_first_where_both_are_near() -> None:
    assert ranked_for("How much is a new card?", [hit(REISSUE, 3.3), hit(ENGLISH, 3.2)])[0].text == ENGLISH.text


def test_first_units_that_are_near_to_each_other_are_close() -> None:
    assert is_close(ranked_for("카드", [hit(REISSUE, 3.3), hit(replace(REISSUE, document_id="b"), 3.2)]))
    assert not is_close(ranked_for("카드", [hit(REISSUE, 3.3)]))


def test_a_model_that_prefers_a_place_does_not_change_the_order() -> None:
    ranked = ranked_for("카드", [hit(REISSUE, 3.3), hit(replace(REISSUE, document_id="b"), 3.2)])
    shares = posterior(ranked, [(0.9, 0.1), (0.1, 0.9)])
    assert shares[0] > shares[1]
    assert sum(shares) == pytest.approx(1)


def test_a_model_that_is_sure_in_both_orders_decides() -> None:
    ranked = ranked_for("카드", [hit(REISSUE, 3.3), hit(replace(REISSUE, document_id="b"), 3.2)])
    shares = posterior(ranked, [(0.1, 0.9), (0.1, 0.9)])
    assert shares[1] > shares[0]


@pytest.mark.parametrize("certain", [True, False])
def test_each_unit_is_its_own_event_with_a_true_citation(certain: bool) -> None:  # noqa: FBT001
    sources = [REISSUE, ENGLISH]
    answer = introduced(ranked_for("카드", [hit(source, 3.0) for source in sources]), sources, "ko", certain=certain)
    assert [type(event) for event in answer.events] == [Token, Citation, Token, Citation]
    assert "".join(event.text for event in answer.events if isinstance(event, Token)) == answer.text
    assert answer.text.startswith(NOT_CERTAIN["ko"]) is not certain
    for event in answer.events:
        if isinstance(event, Citation):
            assert answer.text[event.start : event.end] == event.quote == sources[event.n - 1].text
