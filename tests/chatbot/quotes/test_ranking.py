"""Which unit answers: the search's own order, three corrections, and a model's choice where the first are close."""

from dataclasses import replace

import pytest

from chatbot.events import Citation, Token
from chatbot.quotes import NOT_CERTAIN, Candidate, asks_two_things, close_candidates, posterior, quoting_answer, rank
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
    assert len(close_candidates(ranked)) == 1


def test_an_opening_gives_way_to_the_asked_number() -> None:
    ranked = ranked_for("재발급 수수료는 얼마예요?", [hit(OPENING, 4.0), hit(REISSUE, 3.6)])
    assert ranked[0].text == REISSUE.text


def test_a_passage_in_the_questions_language_comes_first_where_both_are_near() -> None:
    assert ranked_for("How much is a new card?", [hit(REISSUE, 3.3), hit(ENGLISH, 3.2)])[0].text == ENGLISH.text


@pytest.mark.parametrize(
    ("scores", "close"),
    [([3.3], 1), ([3.3, 2.0], 1), ([3.3, 2.2, 2.0], 2), ([3.3, 3.2, 2.2, 2.2], 3)],
    ids=["alone", "a clear lead", "two", "four"],
)
def test_up_to_three_units_that_rank_close_are_quoted(scores: list[float], close: int) -> None:
    hits = [hit(replace(REISSUE, document_id=str(n)), score) for n, score in enumerate(scores)]
    assert [unit.n for unit in close_candidates(ranked_for("카드", hits))] == list(range(1, close + 1))


def test_of_close_units_a_model_decides_that_prefers_no_place() -> None:
    ranked = ranked_for("카드", [hit(REISSUE, 3.3), hit(replace(REISSUE, document_id="b"), 3.2)])
    shares = posterior(ranked, [(0.9, 0.1), (0.1, 0.9)])
    assert shares[0] > shares[1]
    assert sum(shares) == pytest.approx(1)
    shares = posterior(ranked, [(0.1, 0.9), (0.1, 0.9)])
    assert shares[1] > shares[0], "it is sure in both orders"


@pytest.mark.parametrize("is_certain", [True, False])
def test_each_unit_is_its_own_event_with_a_true_citation(is_certain: bool) -> None:  # noqa: FBT001
    sources = [REISSUE, ENGLISH]
    answer = quoting_answer(
        ranked_for("카드", [hit(source, 3.0) for source in sources]), sources, "ko", is_certain=is_certain
    )
    assert [type(event) for event in answer.events] == [Token, Citation, Token, Citation]
    assert "".join(event.text for event in answer.events if isinstance(event, Token)) == answer.text
    assert answer.text.startswith(NOT_CERTAIN["ko"]) is not is_certain
    for event in answer.events:
        if isinstance(event, Citation):
            assert answer.text[event.start : event.end] == event.quote == sources[event.n - 1].text


def test_of_a_shown_unit_the_asked_part_is_quoted() -> None:
    fees, days = "재발급 수수료는 2,000원입니다.", "새 카드는 3영업일 안에 받습니다."
    source = replace(REISSUE, text=f"{fees}\n\n{days}")
    (whole,) = ranked_for("카드를 다시 만들려면요?", [hit(source, 4.0)])
    (part,) = rank("그럼 며칠 안에 받아요?", [hit(source, 4.0)], "ko", [whole.text])
    assert (whole.text, part.text) == (source.text, days)
    (again,) = rank("그럼 카드는요?", [hit(REISSUE, 4.0)], "ko", [REISSUE.text])
    assert again.text == REISSUE.text, "it has one part"


@pytest.mark.parametrize(
    ("question", "two"),
    [
        ("재발급 수수료는 얼마고 며칠 걸려요?", True),
        ("세금우대가 뭐고 얼마까지 넣을 수 있어요", True),
        ("Which plan wants the same amount every month, and what does it pay?", True),
        ("How much is it? And where do I get it?", True),
        ("재발급 수수료는 얼마예요?", False),
        ("적금 몇 번 빼먹었는데 만기되면 어떻게 처리돼요", False),
        ("What documents need to be submitted when I make a claim?", False),
    ],
)
def test_a_question_with_two_joined_interrogatives_asks_two_things(question: str, two: bool) -> None:  # noqa: FBT001
    assert asks_two_things(question) is two
