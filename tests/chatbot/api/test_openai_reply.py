"""Events as OpenAI's format: reasons, usage, failures, refusals."""

import msgspec
import pytest

from chatbot.api.openai_reply import FINISH, Chunk, Chunks, Completion, ErrorReply, completion
from chatbot.api.problems import headers_of, problem_of
from chatbot.api.routes.openai import answer_document, error_json
from chatbot.errors import (
    BadRequest,
    ChatError,
    Forbidden,
    ModelNotFound,
    Overloaded,
    RateLimited,
    TooLarge,
    Unauthenticated,
    Unsupported,
)
from chatbot.events import (
    Accepted,
    Event,
    Failed,
    FinishReason,
    Notice,
    NoticeCode,
    Token,
    Usage,
)
from tests.answers import done

ACCEPTED = Accepted(
    answer_id="a" * 32, conversation_id="c", question_id="q", model="m", prompt_version="p", trace_id="t"
)
FAILED = Failed(
    code="overloaded", status=503, title="Busy", retryable=True, retry_after_ms=1500, trace_id="t", handoff="Call us."
)
USAGE = Usage(prompt_tokens=5, cached_tokens=4, answer_tokens=2, thinking_tokens=3)


def fed(*events: Event, include_usage: bool = False) -> list[Chunk | ErrorReply]:
    chunks = Chunks(created=1, include_usage=include_usage)
    return [chunk for event in events for chunk in chunks.feed(event)]


@pytest.mark.parametrize("reason", list(FinishReason))
def test_every_end_has_a_reason_that_clients_know(reason: FinishReason) -> None:
    whole = completion([ACCEPTED, Token(text="It is."), done(reason, usage=USAGE)], created=1)
    last = fed(ACCEPTED, done(reason, usage=USAGE))[-1]
    assert isinstance(whole, Completion)
    assert isinstance(last, Chunk)
    assert whole.choices[0].finish_reason == last.choices[0].finish_reason == FINISH[reason]


def test_a_model_that_thinks_adds_nothing_to_the_answer() -> None:
    thinks = Notice(code=NoticeCode.THINKING, text="The answer is being worked out.")
    events = (ACCEPTED, Token(text="It"), done(usage=USAGE))
    assert fed(ACCEPTED, thinks, *events[1:]) == fed(*events)
    assert completion([ACCEPTED, thinks, *events[1:]], created=1) == completion(events, created=1)


def test_usage_is_sent_only_where_requested() -> None:
    events = (ACCEPTED, Token(text="It"), done(usage=USAGE))
    assert [b'"usage"' in msgspec.json.encode(chunk) for chunk in fed(*events)] == [False] * 3
    with_usage = [msgspec.json.decode(msgspec.json.encode(chunk)) for chunk in fed(*events, include_usage=True)]
    assert [chunk["usage"] for chunk in with_usage[:-1]] == [None] * 3
    assert with_usage[-1]["choices"] == []
    assert with_usage[-1]["usage"] == {
        "prompt_tokens": 5,
        "completion_tokens": 5,
        "total_tokens": 10,
        "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 3},
    }


def test_a_failure_names_the_person_to_turn_to_in_both_ways() -> None:
    whole, streamed = answer_document([ACCEPTED, FAILED], created=1), fed(ACCEPTED, FAILED)[-1]
    assert isinstance(streamed, ErrorReply)
    assert msgspec.json.decode(whole.body, type=ErrorReply) == streamed
    error = streamed.error
    assert (error.code, error.type, error.message) == ("overloaded", "server_error", "Busy. Call us.")
    assert (whole.status_code, whole.headers["retry-after"]) == (503, "2")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (BadRequest("why"), "invalid_request_error"),
        (Unauthenticated("why"), "authentication_error"),
        (Forbidden("why"), "permission_error"),
        (ModelNotFound("why"), "invalid_request_error"),
        (TooLarge("why"), "invalid_request_error"),
        (RateLimited(scope="user", dimension="tokens", retry_after=1), "rate_limit_error"),
        (Overloaded("why"), "server_error"),
        (ChatError("why"), "server_error"),
    ],
    ids=lambda value: getattr(value, "code", None),
)
def test_a_refusal_keeps_its_code_and_has_a_type_that_clients_know(error: ChatError, kind: str) -> None:
    body = msgspec.json.decode(error_json(problem_of(error), {}).body)["error"]
    assert (body["message"], body["code"], body["type"]) == (error.detail, error.code, kind)


def test_a_refusal_keeps_its_status_its_wait_and_its_field() -> None:
    busy, named = Overloaded(retry_after=2.2), Unsupported("no tools", param="tools")
    response = error_json(problem_of(busy), headers_of(busy))
    assert (response.status_code, response.headers["retry-after"]) == (503, "3")
    assert msgspec.json.decode(error_json(problem_of(named), {}).body)["error"]["param"] == "tools"
