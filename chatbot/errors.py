"""The errors of the chat API, as one tree. Each class has the `code`, `status` and `retryable` that clients see.

ChatError
├── BadRequest            400 bad_request         the request cannot be understood
│   ├── ForeignEventId    400 foreign_event_id    `Last-Event-ID` belongs to another answer
│   └── Unsupported       400 unsupported         an OpenAI feature that is not supported; `param` names the field
├── Unauthenticated       401 unauthenticated     no token, an expired one, a wrong signature
├── Forbidden             403 forbidden           the caller's role may not do that
├── NotFound              404 not_found           it does not exist, or belongs to another customer
│   └── ModelNotFound     404 model_not_found     no model has that name
├── MethodNotAllowed      405 method_not_allowed  the method is not allowed; `Allow` lists the others
├── LogLost               409 log_lost            the event log ends before that event
├── StillRunning          409 still_running       the answer has not ended yet
├── TooLarge              413 too_large           larger than the limit will ever allow
├── Unprocessable         422 invalid_request     a field is missing or out of range
│   └── KeyReused         422 idempotency_key_reused  the same `Idempotency-Key` with another body
├── RateLimited           429 rate_limited        the caller's own limit; `scope` and `dimension` name it
└── Unavailable           503 unavailable         a part of the service is unavailable
    ├── Overloaded        503 overloaded          no capacity left; `Retry-After` says when
    ├── IndexUnavailable  503 index_unavailable   the passage index is unavailable
    ├── ModelUnavailable  503 model_unavailable   no model endpoint answers
    ├── StoreUnavailable  503 store_unavailable   Redis, or the table of ratings, is unavailable
    ├── AuditUnavailable  503 audit_unavailable   SQL cannot record an answer, a stop or a key
    └── Draining          503 draining            this replica is shutting down
Anything else is `internal` (500): a bug, logged with its trace id.
"""

from collections.abc import Iterator
from typing import ClassVar

from chatbot.events import Failed, Limits


class ChatError(Exception):
    """An error that clients see: before the first byte as a status, after it as an `error` event."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Something went wrong on our side"
    retryable: ClassVar[bool] = False
    param: str | None = None
    """The invalid field of the request, if there is one."""

    def __init__(self, detail: str = "", *, retry_after: float | None = None) -> None:
        """`retry_after` is in seconds."""
        super().__init__(detail or self.title)
        self.detail = detail or self.title
        self.retry_after = retry_after


class BadRequest(ChatError):
    code, status, title = "bad_request", 400, "The request cannot be understood"


class ForeignEventId(BadRequest):
    code, title = "foreign_event_id", "Last-Event-ID belongs to another answer"


class Unsupported(BadRequest):
    """An OpenAI request uses an unsupported feature; `param` names the field."""

    code, title = "unsupported", "This API does not support that"

    def __init__(self, detail: str, *, param: str) -> None:
        super().__init__(detail)
        self.param = param


class Unauthenticated(ChatError):
    code, status, title = "unauthenticated", 401, "Sign in to continue"


class Forbidden(ChatError):
    code, status, title = "forbidden", 403, "This is not allowed for your role"


class NotFound(ChatError):
    code, status, title = "not_found", 404, "Not found"


class ModelNotFound(NotFound):
    code, title = "model_not_found", "There is no model with that name"
    param = "model"


class MethodNotAllowed(ChatError):
    code, status, title = "method_not_allowed", 405, "Method not allowed for this address"


class LogLost(ChatError):
    code, status, title = "log_lost", 409, "The rest of this answer's events is lost"


class StillRunning(ChatError):
    code, status, title, retryable = "still_running", 409, "The answer has not ended yet", True


class TooLarge(ChatError):
    code, status, title = "too_large", 413, "The request is larger than the limit"


class Unprocessable(ChatError):
    code, status, title = "invalid_request", 422, "A field is missing or out of range"


class KeyReused(Unprocessable):
    code, title = "idempotency_key_reused", "This Idempotency-Key was used with another request"


class RateLimited(ChatError):
    """The caller's own limit; `scope` and `dimension` name it, `retry_after` is the exact wait in seconds.

    `retry_after` is None if the wait is unknown: a slot is free when a running answer ends. `limits` are the caller's
    remaining amounts, if they are known.
    """

    code, status, title, retryable = "rate_limited", 429, "Too many requests or tokens", True

    def __init__(self, *, scope: str, dimension: str, retry_after: float | None, limits: Limits | None = None) -> None:
        super().__init__(f"The {scope}'s limit {dimension!r} is reached", retry_after=retry_after)
        self.scope = scope
        self.dimension = dimension
        self.limits = limits


class Unavailable(ChatError):
    code, status, title, retryable = "unavailable", 503, "Not available right now", True


class Overloaded(Unavailable):
    code, title = "overloaded", "Too many customers at once"


class IndexUnavailable(Unavailable):
    code, title = "index_unavailable", "The documents cannot be searched right now"


class ModelUnavailable(Unavailable):
    code, title = "model_unavailable", "No model can answer right now"


class StoreUnavailable(Unavailable):
    """Redis cannot be reached; `may_be_executed` is False if the command was never sent."""

    code, title = "store_unavailable", "Conversations are not available right now"

    def __init__(self, detail: str = "", *, retry_after: float | None = None, may_be_executed: bool = True) -> None:
        super().__init__(detail, retry_after=retry_after)
        self.may_be_executed = may_be_executed


class AuditUnavailable(Unavailable):
    code, title = "audit_unavailable", "Answers cannot be recorded right now"


class Draining(Unavailable):
    code, title = "draining", "This server is shutting down; a retry reaches another one"


def errors_under(kind: type[ChatError]) -> Iterator[type[ChatError]]:
    """Yield an error class and all classes derived from it."""
    yield kind
    for derived in kind.__subclasses__():
        yield from errors_under(derived)


def error_of(code: str, *, retry_after: float | None) -> ChatError:
    """Return the error that has a code, or an `internal` error if none has it."""
    kind = next((kind for kind in errors_under(ChatError) if kind.code == code), ChatError)
    # Skips the subclass's own `__init__`: its extra fields (scope, limits) are sent only in an HTTP refusal.
    error = kind.__new__(kind)
    ChatError.__init__(error, retry_after=retry_after)
    return error


def failed(error: ChatError, *, trace_id: str = "", handoff: str = "") -> Failed:
    """Return the event that ends a stream with an error; `handoff` says where to find a person."""
    return Failed(
        code=error.code,
        status=error.status,
        title=error.title,
        retryable=error.retryable,
        retry_after_ms=None if error.retry_after is None else round(error.retry_after * 1000),
        trace_id=trace_id,
        handoff=handoff,
    )
