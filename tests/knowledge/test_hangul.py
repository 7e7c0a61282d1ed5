"""Composition of Hangul."""

import unicodedata

import pytest

from knowledge.hangul import composed
from knowledge.passage import language_of

KOREAN = "샘물 정기예금을 만기 전에 해지하면 금리가 어떻게 되나요?"


@pytest.mark.parametrize("text", [KOREAN, "죽고 싶어요", "abc ㅋㅋ 뷁", ""])
def test_a_decomposed_text_is_composed_and_a_composed_one_stays(text: str) -> None:
    assert composed(unicodedata.normalize("NFD", text)) == composed(text) == text


def test_other_characters_than_hangul_stay() -> None:
    marks = "e\u0301 " + "\u0315\u0300" * 1000
    assert composed(marks) == marks


def test_the_language_is_the_same_in_every_spelling() -> None:
    mixed = "IRP 계좌 transfer"
    for text in (KOREAN, mixed, "How much is it?"):
        assert language_of(unicodedata.normalize("NFD", text)) == language_of(text)
