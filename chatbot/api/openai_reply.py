"""An answer's events as OpenAI's chat completion, whole or in chunks, and errors in OpenAI's format (pure).

The id is the answer's own, so that `/v1/answers/{id}/…` takes it. Citations are `url_citation` annotations:
`start_index` and `end_index` are the offsets of the cited sentence (code points, the end not included), `url` is the
bank's public page about the document, or the path of the passage at this API. A passage that may help in place of an
answer (`related`) is one too, for no sentence: both offsets are the end of the text. Events without a counterpart in
the format (queued, sources, notice) are left out.
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

# refused and handoff are `stop`: the text is complete and meant for the customer, and many clients discard a text that
# ends in `content_filter`. withheld is `content_filter`: as OpenAI defines it, content was left out by a check. budget
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
    """A part of a streamed answer; `usage` is in every chunk where it was asked for, and null until the last."""

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
    """OpenAI's error format; `code` is the same as everywhere else in this API."""

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
    """Turns events into chunks as they come; `created` is in Unix seconds."""

    def __init__(self, *, created: int, include_usage: bool) -> None:
        self._created = created
        self._include_usage = include_usage
        self._annotations = Annotations("", ())
        self._id = ""
        self._model = ""
        self._length = 0

    def feed(self, event: Event) -> list[Chunk | ErrorReply]:
        """Return the chunks of the event: usually one, for some events none."""
        match event:
            case Accepted():
                self._id, self._model = event.answer_id, event.model
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
                return self._ended(event)
            case Failed():
                return [failure(event)]
        return []

    def _ended(self, done: Done) -> list[Chunk | ErrorReply]:
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
    """Turns the citations of an answer into annotations."""

    def __init__(self, answer_id: str, sources: Iterable[Source]) -> None:
        self._answer_id = answer_id
        self._titles = {source.n: source.title for source in sources}

    def of(self, citation: Citation) -> Annotation:
        """Return the annotation, with the title of the source."""
        title = self._titles.get(citation.n, citation.document_id)
        return self._annotation(citation, title, citation.start, citation.end)

    def related(self, passage: RelatedPassage, *, at: int) -> Annotation:
        """Return the annotation of a passage that may help, at the end of the text."""
        return self._annotation(passage, passage.title, at, at)

    def _annotation(self, cited: Citation | RelatedPassage, title: str, start: int, end: int) -> Annotation:
        url = cited.link or f"/v1/answers/{self._answer_id}/sources/{cited.n}"
        return Annotation(url_citation=UrlCitation(start_index=start, end_index=end, title=title, url=url))


def completion(events: Sequence[Event], *, created: int) -> Completion:
    """Return the finished answer of the events; `created` is in Unix seconds.

    Raises:
        ValueError: the events are not those of an answer from its first to a `done`.
    """
    match events[:1], events[-1:]:
        case [Accepted() as accepted], [Done() as done]:
            annotations = Annotations(accepted.answer_id, _sources(events))
            text = "".join(event.text for event in events if isinstance(event, Token))
            cited = [annotations.of(event) for event in events if isinstance(event, Citation)]
            related = [item for event in events if isinstance(event, Related) for item in event.items]
            message = ReplyMessage(
                content=text,
                annotations=(*cited, *(annotations.related(item, at=len(text)) for item in related)),
            )
            return Completion(
                id=accepted.answer_id,
                created=created,
                model=accepted.model,
                choices=(Choice(message=message, finish_reason=FINISH[done.finish_reason]),),
                usage=usage_of(done.usage),
            )
    raise ValueError("these events are not a whole answer")


def _sources(events: Sequence[Event]) -> list[Source]:
    return [source for event in events if isinstance(event, Sources) for source in event.items]


def usage_of(usage: Usage) -> CompletionUsage:
    """Return the tokens used, in OpenAI's names."""
    return CompletionUsage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.generated_tokens,
        total_tokens=usage.prompt_tokens + usage.generated_tokens,
        prompt_tokens_details=PromptTokens(cached_tokens=usage.cached_tokens),
        completion_tokens_details=CompletionTokens(reasoning_tokens=usage.thinking_tokens),
    )


def failure(failed: Failed) -> ErrorReply:
    """Return the error that ended an answer, with its hand-off text."""
    return error_reply(status=failed.status, code=failed.code, message=f"{failed.title}. {failed.handoff}")


def error_reply(*, status: int, code: str, message: str, param: str | None = None) -> ErrorReply:
    """Return an error; its `type` follows from the HTTP status."""
    kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return ErrorReply(error=ErrorInfo(message=message, type=kind, param=param, code=code))


_TYPES: Final[Mapping[int, str]] = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
