"""Yes against no, and one number against the others, read from the most likely tokens."""

from math import log

import pytest

from chatbot.models.choice_probabilities import LEAST_CHOICE_MASS, Choices, choice_probabilities, number_choices

YES_OR_NO = (("예", "Yes"), ("아니오", "아니", "No"))


def yes_probability(chances: dict[bytes, float]) -> float:
    yes, no = probabilities(chances, YES_OR_NO)
    assert yes + no == pytest.approx(1)
    return yes


def probabilities(chances: dict[bytes, float], choices: Choices, least: float = 0.0) -> tuple[float, ...]:
    logprobs = [(token, log(chance)) for token, chance in chances.items()]
    return choice_probabilities(logprobs, choices, least_mass=least)


@pytest.mark.parametrize("yes", ["예", " 예", "Yes", " yes", "YES", "Y", "예.", "예,", "Yes!"])
@pytest.mark.parametrize("no", ["아니오", "아니", "아", " 아니요", "아니라", "No", "no.", "N"])
def test_words_are_matched_by_their_beginning_whatever_stands_around(yes: str, no: str) -> None:
    assert yes_probability({yes.encode(): 0.6, no.encode(): 0.2}) == pytest.approx(0.75)


@pytest.mark.parametrize("other", ["예금", "예를", "Not", "Note", "Yesterday", "Now", "은행", "", " ", "\n", "."])
def test_longer_words_of_another_meaning_count_for_neither(other: str) -> None:
    assert yes_probability({other.encode(): 0.9, "예".encode(): 0.03, "아니오".encode(): 0.01}) == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("chances", "yes"),
    [
        ({b"\xec": 0.9, b"\xec\x98": 0.06, b"\xec\x95\x84": 0.02}, 0.75),  # a byte that begins both words
        ({"예".encode() + b"\xea\xb8": 0.9, "아니오".encode(): 0.1}, 0),  # cut within the next letter
        ({"예".encode(): 0.4}, 1),
        ({"아니오".encode(): 0.4}, 0),
        ({"은행".encode(): 0.9}, 0.5),
        ({}, 0.5),
    ],
)
def test_each_beginning_of_a_word_counts_for_it_alone(chances: dict[bytes, float], yes: float) -> None:
    assert yes_probability(chances) == pytest.approx(yes)


def test_of_several_numbers_each_has_its_share_and_nothing_else_counts() -> None:
    chances = {b"2": 0.3, b" 3.": 0.05, b"1": 0.1, "1번".encode(): 0.2, b"10": 0.1, b"4": 0.1, b"The": 0.15}
    assert probabilities(chances, number_choices(3)) == pytest.approx((0.1 / 0.45, 0.3 / 0.45, 0.05 / 0.45))
    assert probabilities({b"The": 0.9, b"20": 0.1}, number_choices(3)) == (1 / 3, 1 / 3, 1 / 3)


def test_an_unlikely_choice_counts_as_none() -> None:
    chances = {b"1": 0.02, b"2": 0.005, b"<think>": 0.9}
    assert probabilities(chances, number_choices(2)) == pytest.approx((0.8, 0.2))
    assert probabilities(chances, number_choices(2), LEAST_CHOICE_MASS) == (0.5, 0.5)
    assert probabilities({b"1": 0.5, b"The": 0.5}, number_choices(2), LEAST_CHOICE_MASS) == (1, 0)
