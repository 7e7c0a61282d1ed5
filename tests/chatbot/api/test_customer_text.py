"""What a customer writes comes in composed and within bounds, on every route that takes it."""

import unicodedata
from collections.abc import Callable

import pytest
from pydantic import ValidationError

from chatbot.api.openai_request import CompletionRequest, read_request
from chatbot.api.routes.answers import Rating
from chatbot.api.routes.chat import Ask


def of_completion(content: object) -> tuple[str, str]:
    messages = [{"role": "user", "content": content}, {"role": "assistant", "content": "."}]
    messages.append({"role": "user", "content": content})
    asked = read_request(CompletionRequest.model_validate({"model": "bank", "messages": messages}))
    return asked.text, asked.earlier[0].text


@pytest.mark.parametrize(
    "read",
    [
        lambda text: Ask.model_validate_json(f'{{"message": "{text}"}}').message,
        lambda text: Rating.model_validate({"rating": "up", "comment": text}).comment,
        lambda text: of_completion(text)[0],
        lambda text: of_completion(text)[1],
        lambda text: of_completion([{"type": "text", "text": text}])[0],
        lambda text: of_completion([{"type": "text", "text": text}])[1],
    ],
    ids=["question", "comment", "completion", "earlier", "part", "part of an earlier one"],
)
def test_a_decomposed_text_of_a_customer_is_read_composed(read: Callable[[str], str]) -> None:
    assert read(unicodedata.normalize("NFD", "죽고 싶어요")) == "죽고 싶어요"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"rating": "sideways"},
        {"rating": "up", "reasons": ["a"] * 9},
        {"rating": "up", "reasons": ["Call 010-1234-5678"]},
        {"rating": "up", "reasons": ["x" * 41]},
        {"rating": "up", "comment": "가" * 1001},
        {"rating": "up", "comment": "\x00"},
    ],
    ids=str,
)
def test_an_invalid_feedback_is_refused(body: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Rating.model_validate(body)


def test_the_longest_question_is_counted_in_the_characters_that_a_reader_sees() -> None:
    longest = "각" * 4000
    assert Ask(message=unicodedata.normalize("NFD", longest)).message == longest
    with pytest.raises(ValidationError, match="at most 4000 characters"):
        Ask(message=unicodedata.normalize("NFD", longest + "각"))
