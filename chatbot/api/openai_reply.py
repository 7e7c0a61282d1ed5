"""Convert an answer's events to OpenAI's chat completion, whole or in chunks, and errors to OpenAI's format (pure).

The completion's id is the answer's id, so that `/v1/answers/{id}/…` accepts it. Citations are `url_citation`
annotations: `start_index` and `end_index` are the offsets of the cited sentence (code points, the end not included),
`url` is the bank's public page about the document, or the path of the passage at this API. Related passages are
annotations too, with both offsets at the end of the text. Events without a counterpart in the format (queued, sources,
notice) are left out.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal

import msgspec
from msgspec import UNSET, UnsetType

from chatbot.events import (
    Accepted,
    Citation,
    Done,
    Event,
    Failed,
    FinishReason,
    Related,
    RelatedPassage,
    Source,
    Sources,
    Token,
    Usage,
)

Finish = Literal["stop", "length", "content_filter"]

# refused and handoff are `stop`: the text is complete and meant for the customer, and many clients discard a text with
# the reason `content_filter`. withheld is `content_filter`: as OpenAI defines it, a check has removed content. budget
# and cancelled are `length`: the text breaks off, and `length` is the only reason by which clients recognise that.
FINISH: Final[Mapping[FinishReason, Finish]] = {
    FinishReason.STOP: "stop",
    FinishReason.LENGTH: "length",
    FinishReason.BUDGET: "length",
    FinishReason.REFUSED: "stop",
    FinishReason.WITHHELD: "content_filter",
    FinishReason.CANCELLED: "length",
    FinishReason.HANDOFF: "stop",
}


class UrlCitation(msgspec.Struct, frozen=True, kw_only=True):
    start_index: int
    end_index: int
    title: str
    url: str


class Annotation(msgspec.Struct, frozen=True, kw_only=True):
    """OpenAI's shape of a citation."""

    type: Literal["url_citation"] = "url_citation"
    url_citation: UrlCitation


class PromptTokens(msgspec.Struct, frozen=True, kw_only=True):
    cached_tokens: int


class CompletionTokens(msgspec.Struct, frozen=True, kw_only=True):
    reasoning_tokens: int


class CompletionUsage(msgspec.Struct, frozen=True, kw_only=True):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokens
    completion_tokens_details: CompletionTokens


class ReplyMessage(msgspec.Struct, frozen=True, kw_only=True):
    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None
    annotations: tuple[Annotation, ...]


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    index: int = 0
    message: ReplyMessage
    logprobs: None = None
    finish_reason: Finish


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """A whole answer."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: tuple[Choice]
    usage: CompletionUsage


class Delta(msgspec.Struct, frozen=True, kw_only=True):
    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType = UNSET
    annotations: tuple[Annotation, ...] | UnsetType = UNSET


class ChunkChoice(msgspec.Struct, frozen=True, kw_only=True):
    index: int = 0
    delta: Delta
    logprobs: None = None
    finish_reason: Finish | None = None


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a streamed answer; if usage was requested, every chunk has `usage`, null in all but the last."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: tuple[ChunkChoice, ...]
    usage: CompletionUsage | UnsetType | None = UNSET


class ErrorInfo(msgspec.Struct, frozen=True, kw_only=True):
    message: str
    type: str
    param: str | None
    code: str


class ErrorReply(msgspec.Struct, frozen=True, kw_only=True):
    """OpenAI's error format; `code` is this API's own code."""

    error: ErrorInfo


class Model(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "bank"


class ModelList(msgspec.Struct, frozen=True, kw_only=True):
    object: Literal["list"] = "list"
    data: tuple[Model, ...]


class Chunks:
    """Converts events to chunks one by one; `created` is in Unix seconds."""

    def __init__(self, *, created: int, include_usage: bool) -> None:
        self._created = created
        self._include_usage = include_usage
        self._annotations = Annotations("", ())
        self._id = ""
        self._model = ""
        self._length = 0

    def feed(self, event: Event) -> list[Chunk | ErrorReply]:
        """Return the chunks of the event: one, none, or two for the last event."""
        match event:
            case Accepted():
                self._id = event.answer_id
                self._model = event.model
                return [self._chunk(Delta(role="assistant", content=""))]
            case Sources():
                self._annotations = Annotations(self._id, event.items)
            case Token():
                self._length += len(event.text)
                return [self._chunk(Delta(content=event.text))]
            case Citation():
                return [self._chunk(Delta(annotations=(self._annotations.of(event),)))]
            case Related():
                annotations = tuple(self._annotations.related(item, at=self._length) for item in event.items)
                return [self._chunk(Delta(annotations=annotations))]
            case Done():
                return self._last_chunks(event)
            case Failed():
                return [failure(event)]
        return []

    def _last_chunks(self, done: Done) -> list[Chunk | ErrorReply]:
        last: list[Chunk | ErrorReply] = [self._chunk(Delta(), finish_reason=FINISH[done.finish_reason])]
        if self._include_usage:
            usage = usage_of(done.usage)
            last.append(Chunk(id=self._id, created=self._created, model=self._model, choices=(), usage=usage))
        return last

    def _chunk(self, delta: Delta, *, finish_reason: Finish | None = None) -> Chunk:
        return Chunk(
            id=self._id,
            created=self._created,
            model=self._model,
            choices=(ChunkChoice(delta=delta, finish_reason=finish_reason),),
            usage=None if self._include_usage else UNSET,
        )


class Annotations:
    """Converts the citations and the related passages of an answer to annotations."""

    def __init__(self, answer_id: str, sources: Iterable[Source]) -> None:
        self._answer_id = answer_id
        self._titles = {source.n: source.title for source in sources}

    def of(self, citation: Citation) -> Annotation:
        """Return the annotation of a citation, with the title of its source."""
        title = self._titles.get(citation.n, citation.document_id)
        return self._annotation(citation, title, citation.start, citation.end)

    def related(self, passage: RelatedPassage, *, at: int) -> Annotation:
        """Return the annotation of a related passage at the offset `at`, the end of the text."""
        return self._annotation(passage, passage.title, at, at)

    def _annotation(self, cited: Citation | RelatedPassage, title: str, start: int, end: int) -> Annotation:
        url = cited.link or f"/v1/answers/{self._answer_id}/sources/{cited.n}"
        return Annotation(url_citation=UrlCitation(start_index=start, end_index=end, title=title, url=url))


def completion(events: Sequence[Event], *, created: int) -> Completion:
    """Return the completion of an answer's events; `created` is in Unix seconds.

    Raises:
        ValueError: the events do not begin with `accepted` or do not end with `done`.
    """
    match events[:1], events[-1:]:
        case [Accepted() as accepted], [Done() as done]:
            sources = [source for event in events if isinstance(event, Sources) for source in event.items]
            related = [item for event in events if isinstance(event, Related) for item in event.items]
            text = "".join(event.text for event in events if isinstance(event, Token))
            annotations = Annotations(accepted.answer_id, sources)
            of_citations = [annotations.of(event) for event in events if isinstance(event, Citation)]
            of_related = [annotations.related(item, at=len(text)) for item in related]
            message = ReplyMessage(content=text, annotations=(*of_citations, *of_related))
            return Completion(
                id=accepted.answer_id,
                created=created,
                model=accepted.model,
                choices=(Choice(message=message, finish_reason=FINISH[done.finish_reason]),),
                usage=usage_of(done.usage),
            )
    raise ValueError("these events are not a whole answer")


def usage_of(usage: Usage) -> CompletionUsage:
    """Return the usage in OpenAI's fields."""
    return CompletionUsage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.generated_tokens,
        total_tokens=usage.prompt_tokens + usage.generated_tokens,
        prompt_tokens_details=PromptTokens(cached_tokens=usage.cached_tokens),
        completion_tokens_details=CompletionTokens(reasoning_tokens=usage.thinking_tokens),
    )


def failure(failed: Failed) -> ErrorReply:
    """Return the error reply of an answer that ended in an error, with its hand-off text."""
    return error_reply(status=failed.status, code=failed.code, message=f"{failed.title}. {failed.handoff}")


def error_reply(*, status: int, code: str, message: str, param: str | None = None) -> ErrorReply:
    """Return an error reply; its `type` depends on the HTTP status."""
    default_type = "server_error" if status >= 500 else "invalid_request_error"
    error_type = _TYPES.get(status, default_type)
    return ErrorReply(error=ErrorInfo(message=message, type=error_type, param=param, code=code))


_TYPES: Final[Mapping[int, str]] = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
