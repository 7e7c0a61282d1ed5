"""vLLM's `/v1/completions` and other servers' `/v1/chat/completions` as messages: the requests, and a decoder of their
event streams. No I/O.

Only the fields in use are decoded, into msgspec types: decoding JSON is the main cost of a stream in Python.
"""

import codecs
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Annotated, Literal

import msgspec

# A chunk is the JSON of one token (about 300 bytes); the first also holds the prompt's ids.
LONGEST_CHUNK_BYTES = 4 * 2**20
# How much of a reply that is no event stream is kept: an error in its place is short.
_LONGEST_ERROR_BYTES = 8192


TokenId = Annotated[int, msgspec.Meta(ge=0, lt=2**32)]
"""A token's id, as the answer log packs it."""
Count = Annotated[int, msgspec.Meta(ge=0, lt=2**31)]
LogProbability = Annotated[float, msgspec.Meta(le=1)]
"""A natural logarithm; rounding may bring it a little above 0."""


_NULL = msgspec.Raw(b"null")
# The fields of an event beside its data.
_FIELDS = (b"event", b"id", b"retry")


class CompletionBroken(Exception):
    """The bytes are not a completion."""


class ErrorReported(CompletionBroken):
    """An error stands where a completion should: `body` is what the server says of it.

    `status` is the one that it would have had before a stream, None where the server does not say.
    """

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.status = _status_in(body)
        super().__init__(f"the server gave up in mid-answer ({self.status or 'error'})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How the answer's tokens are chosen; `thinking_tokens` are those that a reasoning model may have beside them."""

    max_tokens: int
    thinking_tokens: int = 0
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = 0
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of the answer: its text and its token ids."""

    text: str
    token_ids: tuple[int, ...]


class StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool = True


class CompletionRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The body of a request; fields at their defaults are not sent."""

    model: str
    prompt: Sequence[int]
    max_tokens: int
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    stream: bool = False
    stream_options: StreamOptions | None = None
    return_token_ids: bool = False
    logprobs: int | None = None
    return_tokens_as_token_ids: bool = False
    cache_salt: str | None = None
    priority: int = 0  # lower is earlier; anything but 0 is refused without `--scheduling-policy priority`


class ChatMessage(msgspec.Struct, frozen=True):
    role: str
    content: str


class ChatRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The body of a request for a chat completion; only fields that every such server knows."""

    model: str
    messages: tuple[ChatMessage, ...]
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stream: bool = False
    stream_options: StreamOptions | None = None
    logprobs: bool = False
    top_logprobs: int | None = None


class _PromptTokensDetails(msgspec.Struct, frozen=True, gc=False):
    cached_tokens: Count | None = None


class _CompletionTokensDetails(msgspec.Struct, frozen=True, gc=False):
    reasoning_tokens: Count | None = None


class ReportedUsage(msgspec.Struct, frozen=True, gc=False):
    """The token counts that an endpoint reports."""

    prompt_tokens: Count = 0
    completion_tokens: Count = 0
    total_tokens: Count | None = None
    prompt_tokens_details: _PromptTokensDetails | None = None
    completion_tokens_details: _CompletionTokensDetails | None = None

    @property
    def generated_tokens(self) -> int:
        """All that was generated: xAI and Gemini count the thinking in the total alone."""
        beside = (self.total_tokens or 0) - self.prompt_tokens if self.prompt_tokens else 0
        return max(self.completion_tokens, beside)

    @property
    def thinking_tokens(self) -> int:
        """Those of the generated tokens that the endpoint counts as thinking."""
        details = self.completion_tokens_details
        told = (details.reasoning_tokens or 0) if details else 0
        return max(told, self.generated_tokens - self.completion_tokens)

    @property
    def cached_tokens(self) -> int:
        """Prompt tokens read from the prefix cache; 0 where the endpoint does not report them."""
        return (self.prompt_tokens_details.cached_tokens or 0) if self.prompt_tokens_details else 0


@dataclass(frozen=True, slots=True)
class GenerationEnd:
    """The last part of a generation; `usage` is the endpoint's own count."""

    finish_reason: Literal["stop", "length"]
    usage: ReportedUsage | None


class _Logprobs(msgspec.Struct, frozen=True):
    top_logprobs: tuple[Mapping[str, LogProbability] | None, ...] | None = None


class _ContentPart(msgspec.Struct, frozen=True):
    """A part of a content that is a list, as Mistral's is."""

    type: str = "text"
    text: str | None = None
    thinking: object = None


class ChatDelta(msgspec.Struct, frozen=True):
    """A piece of a chat completion; some servers tell what a model thinks apart, by one of two names or as a part."""

    content: str | tuple[_ContentPart, ...] | None = None
    reasoning_content: object = None
    reasoning: object = None

    @property
    def text(self) -> str:
        """What it holds of the answer."""
        if isinstance(self.content, tuple):
            return "".join(part.text or "" for part in self.content if part.type == "text")
        return self.content or ""

    @property
    def thinking(self) -> str:
        """What it holds of the thinking."""
        parts = self.content if isinstance(self.content, tuple) else ()
        return _text_in(self.reasoning_content or self.reasoning) + "".join(_text_in(part.thinking) for part in parts)


def _text_in(thinking: object) -> str:
    """Return the text of what a server tells of its thinking: a text, or parts and summaries of one."""
    match thinking:
        case str():
            return thinking
        case list():
            return "".join(map(_text_in, thinking))
        case dict():
            return "".join(_text_in(thinking.get(name)) for name in ("text", "summary", "content", "thinking"))
    return ""


class Choice(msgspec.Struct, frozen=True, gc=False):
    """A piece of the answer; its text lags behind its token ids while a character is incomplete."""

    text: str = ""
    token_ids: tuple[TokenId, ...] | None = None
    finish_reason: str | None = None
    delta: ChatDelta | None = None


class _TopTokensChoice(msgspec.Struct, frozen=True):
    logprobs: _Logprobs | None = None


class CompletionChunk(msgspec.Struct, frozen=True):
    """One event of the stream; the last one carries the usage and no choice."""

    choices: tuple[Choice, ...] | None = None
    usage: msgspec.Raw = _NULL
    error: object = None


class _TopTokensReply(msgspec.Struct, frozen=True):
    choices: tuple[_TopTokensChoice, ...]
    usage: msgspec.Raw = _NULL


class TopTokens(msgspec.Struct, frozen=True):
    """The most likely next tokens: natural log probabilities by token id, and the usage of the call.

    Where an endpoint has no ids, they are numbered, and `texts` has the bytes of each number.
    """

    logprobs: Mapping[int, float]
    usage: ReportedUsage
    texts: Mapping[int, bytes] | None = None


class ModelCard(msgspec.Struct, frozen=True):
    """A model that an endpoint serves, and how many tokens its context holds."""

    id: str
    max_model_len: Annotated[int, msgspec.Meta(ge=1, lt=2**31)] | None = None


class ModelList(msgspec.Struct, frozen=True):
    data: tuple[ModelCard, ...]


class TokenizeReply(msgspec.Struct, frozen=True):
    tokens: tuple[TokenId, ...]


class _ChatTop(msgspec.Struct, frozen=True):
    token: str
    logprob: LogProbability
    bytes: tuple[Annotated[int, msgspec.Meta(ge=0, le=255)], ...] | None = None


class _ChatToken(msgspec.Struct, frozen=True):
    top_logprobs: tuple[_ChatTop, ...] | None = None


class _ChatLogprobs(msgspec.Struct, frozen=True):
    content: tuple[_ChatToken, ...] | None = None


class _ChatTopChoice(msgspec.Struct, frozen=True):
    message: ChatDelta | None = None
    logprobs: msgspec.Raw = _NULL


class _ChatTopReply(msgspec.Struct, frozen=True):
    choices: tuple[_ChatTopChoice, ...]
    usage: msgspec.Raw = _NULL


_CHUNKS = msgspec.json.Decoder(CompletionChunk)
_TOP_TOKENS = msgspec.json.Decoder(_TopTokensReply)
_CHAT_TOP = msgspec.json.Decoder(_ChatTopReply)
_USAGE = msgspec.json.Decoder(ReportedUsage | None)
_CHAT_LOGPROBS = msgspec.json.Decoder(_ChatLogprobs | None)


class CompletionDecoder:
    """Decodes the bytes of an event stream, wherever the network cut them; keeps how the answer ended.

    An event is one `data:` line; comments (keep-alives), other fields and empty lines are skipped. What a server says
    of its tokens is taken where it can be read; an answer is not lost by it.
    https://html.spec.whatwg.org/multipage/server-sent-events.html
    """

    def __init__(self) -> None:
        self._rest = b""
        self._no_stream = b""  # the beginning of the lines that are no field
        self._is_error = False  # the next data tells of an error
        self.done = False  # `[DONE]` was received: nothing follows
        self.finish_reason: str | None = None
        self.usage: ReportedUsage | None = None

    def close(self) -> None:
        """Take the end of the bytes.

        Raises:
            ErrorReported: they ended with an error, and its status, in place of an event.
        """
        if self.finish_reason is None and (reported := ErrorReported(self._no_stream + self._rest)).status is not None:
            raise reported

    def feed(self, data: bytes) -> Iterator[Choice]:
        """Yield the pieces of the answer that are complete now: also those before a chunk that is broken.

        Raises:
            CompletionBroken: a chunk is no JSON, is too long, or reports an error.
        """
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > LONGEST_CHUNK_BYTES:
            raise CompletionBroken("a frame without an end")
        for line in takewhile(lambda _: not self.done, lines):
            name, _, value = line.removeprefix(codecs.BOM_UTF8).partition(b":")
            if name == b"data":
                try:
                    chunk = _CHUNKS.decode(value)
                except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
                    chunk = self._without_json(value, exc)
                if self._is_error or chunk.error:
                    raise ErrorReported(value)
                for choice in chunk.choices or ():
                    yield choice
                    # Only now that it was taken: what cannot be taken is no end of the answer.
                    self.finish_reason = choice.finish_reason or self.finish_reason
                self.usage = (_usage(chunk.usage) if chunk.usage != _NULL else None) or self.usage
            elif name:
                self._read_field(name, value, line)

    def _read_field(self, name: bytes, value: bytes, line: bytes) -> None:
        """Note that the next data tells of an error; raise ErrorReported for the field that does so itself."""
        if name == b"error":  # llama.cpp
            raise ErrorReported(value)
        if name not in _FIELDS:
            self._no_stream = (self._no_stream + line)[:_LONGEST_ERROR_BYTES]
        self._is_error = self._is_error or (name == b"event" and value.strip() == b"error")

    def _without_json(self, value: bytes, exc: Exception) -> CompletionChunk:
        """Return an empty chunk for the end mark, or for nothing.

        Raises:
            CompletionBroken: it is neither.
        """
        self.done = value.strip() == b"[DONE]"
        if value.strip() and not self.done:
            raise CompletionBroken("a frame that cannot be read") from exc
        return CompletionChunk()


def _usage(said: msgspec.Raw) -> ReportedUsage | None:
    try:
        usage: ReportedUsage | None = _USAGE.decode(said)
    except msgspec.MsgspecError:
        return None
    return usage


FinishMeaning = Literal["stop", "length", "filtered"]
_FINISH_REASONS: Mapping[str, FinishMeaning] = {
    "stop": "stop",
    "eos_token": "stop",  # Text Generation Inference
    "stop_sequence": "stop",
    "end_turn": "stop",  # gateways to Anthropic and Bedrock
    "complete": "stop",  # to Cohere
    "tool_calls": "stop",  # the model's own end, though nobody gave it a tool
    "function_call": "stop",
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",  # Mistral
    "repetition": "length",  # vLLM, where `extra_body` asks it to detect that
    "content_filter": "filtered",
    "content_filtered": "filtered",
    "guardrail_intervened": "filtered",  # Bedrock
    "safety": "filtered",  # gateways to Gemini
    "prohibited_content": "filtered",
    "recitation": "filtered",
    "refusal": "filtered",
    "sensitive": "filtered",  # Zhipu
}


def finish_meaning(reason: str | None) -> FinishMeaning | None:
    """Return what a server means by the reason that it ended an answer for; None where that is a failure."""
    return _FINISH_REASONS.get((reason or "").lower())


_IDENTIFIER = re.compile(r"[\w.\[\]-]{1,60}", re.ASCII)


def refusal_names(body: bytes) -> str:
    """Return the names by which a server says what it refuses (`unsupported_parameter, max_tokens`), else nothing.

    Its sentence is left out: it may quote the prompt.
    """
    said = (_error_in(body).get(name) for name in ("code", "param", "type", "error_type"))
    return ", ".join(name for name in said if isinstance(name, str) and _IDENTIFIER.fullmatch(name))


def _error_in(body: bytes) -> Mapping[str, object]:
    """Return what a server says of an error: most have it in a field, some beside that or without one."""
    try:
        reply = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}
    error = reply.get("error") if isinstance(reply, dict) else None
    said = error if isinstance(error, dict) else reply
    return said if isinstance(said, dict) else {}


_STATUS = re.compile(r"[45]\d\d", re.ASCII)
_STATUSES: Mapping[str, int] = {
    "content_filter": 400,
    "data_inspection_failed": 400,  # Alibaba
    "context_length_exceeded": 400,
    "invalid_request_error": 400,
    "validation": 422,  # Text Generation Inference
    "insufficient_quota": 429,
    "overloaded": 429,
    "overloaded_error": 529,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
}
"""What servers call an error in a stream, where they give it no status."""


def _status_in(body: bytes) -> int | None:
    """Return the status of an error that a server tells of in its reply: a number, or what its name stands for."""
    error = _error_in(body)
    numbers = (str(error.get(name)) for name in ("code", "status_code"))
    told = next((int(number) for number in numbers if _STATUS.fullmatch(number)), None)
    return told or next((_STATUSES[name] for name in refusal_names(body).split(", ") if name in _STATUSES), None)


def _unreadable_probe(body: bytes) -> CompletionBroken:
    reported = ErrorReported(body)
    return CompletionBroken("the probe's answer cannot be read") if reported.status is None else reported


def read_top_tokens(body: bytes) -> TopTokens:
    """Return the most likely first tokens from the reply to a request with `return_tokens_as_token_ids`.

    Raises:
        CompletionBroken: the body is no such reply.
    """
    try:
        reply = _TOP_TOKENS.decode(body)
        logprobs = reply.choices[0].logprobs
        top = (logprobs and logprobs.top_logprobs and logprobs.top_logprobs[0]) or {}
        by_id = {msgspec.convert(name.removeprefix("token_id:"), TokenId, strict=False): p for name, p in top.items()}
    except (msgspec.MsgspecError, IndexError, ValueError) as exc:
        raise _unreadable_probe(body) from exc
    return TopTokens(by_id, _usage(reply.usage) or ReportedUsage())


def read_chat_top_tokens(body: bytes) -> TopTokens:
    """Return the most likely first tokens of a chat completion with `logprobs`.

    A server that has none is taken at its word: what it has generated is then certain.

    Raises:
        CompletionBroken: the body is no such reply.
    """
    try:
        reply = _CHAT_TOP.decode(body)
        choice = reply.choices[0]
    except (msgspec.MsgspecError, UnicodeDecodeError, IndexError) as exc:
        raise _unreadable_probe(body) from exc
    try:
        logprobs = _CHAT_LOGPROBS.decode(choice.logprobs)
    except msgspec.MsgspecError:  # other servers have other shapes
        logprobs = None
    tokens = (logprobs and logprobs.content) or ()
    top = (tokens[0].top_logprobs if tokens else None) or ()
    texts = [(bytes(t.bytes) if t.bytes is not None else t.token.encode(), t.logprob) for t in top]
    texts = texts or [((choice.message.text if choice.message else "").encode(), 0.0)]
    return TopTokens(
        {n: logprob for n, (_, logprob) in enumerate(texts)},
        _usage(reply.usage) or ReportedUsage(),
        {n: text for n, (text, _) in enumerate(texts)},
    )
