import math
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from knowledge.terms.sparse import Terms


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("정기예금의 이율은", {"정기", "예금", "이율"}),
        ("정기예금중도해지", {"정기", "예금", "중도", "해지"}),
        ("최대 1,000,000원까지", {"1000000", "원"}),
        ("연 3.5%", {"3.5"}),
        ("OTP 재발급", {"otp", "발급"}),
        ("ＯＴＰ", {"otp"}),
        ("The fees for transferring", {"fee", "transfer"}),
        ("don't", {"don't"}),
    ],
)
def test_terms_are_the_content_words_of_a_text(terms: Terms, text: str, expected: set[str]) -> None:
    assert expected <= set(terms.words(text))


@pytest.mark.parametrize("text", ["그리고", "What is it?", "?!", ""])
def test_a_text_without_a_topic_has_no_terms(terms: Terms, text: str) -> None:
    assert terms.query(text).indices == ()


def test_particles_and_inflection_do_not_hide_a_term(terms: Terms) -> None:
    one, other = terms.query("수수료가 transfers"), terms.query("수수료를 transferring")
    assert one == other


def test_a_term_has_the_same_index_in_every_process(terms: Terms) -> None:
    assert terms.query("otp").indices == (3747439763,)


def test_a_term_that_stands_twice_weighs_more_but_not_twice(terms: Terms) -> None:
    (once,) = terms.passage("fee").values
    (twice,) = terms.passage("fee fee").values
    assert once < twice < 2 * once


def test_a_term_weighs_less_in_a_longer_passage(terms: Terms) -> None:
    longer = terms.passage("fee " + " ".join(f"word{'x' * n}" for n in range(300)))
    assert min(longer.values) < terms.passage("fee").values[0]


@pytest.mark.parametrize(
    ("question", "earlier", "synonyms", "weights"),
    [
        ("fee", "fee transfer", "charge", [0.35, 0.7, 1.0, 1.0]),
        ("What is a credit card?", "", "", [0.5, 1.0, 1.0]),
        ("ATM", "", "cash machine", [1.0, 1.0, 1.0]),
        ("지급기", "", "ATM 지급기", [0.5, 1.0]),
        ("fee", "", "charge", [1.0, 1.0]),
    ],
    ids=["an earlier question", "a pair", "no pair of the glossary", "a Korean synonym", "an English synonym"],
)
def test_terms_weigh_by_their_origin(
    terms: Terms, question: str, earlier: str, synonyms: str, weights: list[float]
) -> None:
    assert sorted(terms.query(question, earlier=earlier, synonyms=synonyms).values) == weights


def test_english_neighbours_are_a_term_of_their_own(terms: Terms) -> None:
    apart = set(terms.passage("A card with credit.").indices)
    together = set(terms.passage("The credit card.").indices)
    queried = set(terms.query("credit cards").indices)
    assert queried <= together
    assert len(queried & apart) == 2


@pytest.mark.parametrize("text", ["중도해지 수수료가", "수수료의 중도해지", "수수료, 중도", "OTP 수수료 fee"])
def test_korean_nouns_are_a_pair_only_with_a_space_between(terms: Terms, text: str) -> None:
    pair = set(terms.query("해지수수료").indices) - {*terms.query("해지").indices, *terms.query("수수료").indices}
    assert len(pair) == 1
    assert (pair <= set(terms.passage(text).indices)) is (text == "중도해지 수수료가")


def test_korean_words_and_pairs_weigh_as_the_words_alone(terms: Terms) -> None:
    pair, *words = sorted(terms.query("해지수수료").values)
    assert pair / words[0] == pytest.approx(0.3)
    assert math.fsum([pair, *words]) == pytest.approx(2)
    assert sorted(terms.query("해지수수료", earlier="fee").values)[1] == pytest.approx(0.7 * words[0])


def test_threads_share_one_instance(terms: Terms) -> None:
    texts = [f"정기예금 {n}번째 transferring fees of account {n}" for n in range(60)]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(terms.passage, texts)) == [terms.passage(text) for text in texts]


@settings(deadline=None)
@given(st.text(max_size=60))
def test_any_text_gives_distinct_rising_indices(terms: Terms, text: str) -> None:
    vector = terms.passage(text)
    assert list(vector.indices) == sorted(set(vector.indices))
    assert len(vector.indices) == len(vector.values)
    assert all(value > 0 for value in vector.values)
