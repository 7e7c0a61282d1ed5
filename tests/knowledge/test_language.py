"""The language of a question, alone and in its conversation."""

import pytest

from knowledge.passage import language_in


@pytest.mark.parametrize(
    ("questions", "language"),
    [
        (["IRP?"], "en"),
        (["예금 금리 알려 주세요"], "ko"),
        (["예금 금리 알려 주세요", "IRP?"], "ko"),
        (["예금 금리 알려 주세요", "IRP?", "USD 500", "ok"], "ko"),
        (["예금 금리 알려 주세요", "How much is it abroad?"], "en"),
        (["예금 금리 알려 주세요", "How much is it abroad?", "In Tokyo?"], "en"),
        (["How much is it abroad?", "ATM은?"], "ko"),
        (["hi", "예금 금리 알려 주세요", "12?"], "ko"),
        ([], "en"),
    ],
)
def test_a_few_latin_words_keep_the_language_of_the_question_before(questions: list[str], language: str) -> None:
    assert language_in(questions) == language
