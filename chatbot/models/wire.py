"""The OpenAI API as messages: what a stream's chunks and a probe's reply hold, and what an error means. No I/O.

Only the fields in use are decoded, into msgspec types: decoding JSON is the main cost of a stream in Python.
"""

import codecs
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec

# A chunk is the JSON of one token (about 300 bytes); the first also holds the prompt's ids.
LONGEST_CHUNK_BYTES = 4 * 2**20
# How much of a reply that is not an event stream is kept: an error in its place is short.
_LONGEST_ERROR_BYTES = 8192

TokenId = Annotated[int, msgspec.Meta(ge=0, lt=2**32)]
Count = Annotated[int, msgspec.Meta(ge=0, lt=2**31)]
LogProbability = Annotated[float, msgspec.Meta(le=1)]
"""A natural logarithm; rounding may bring it a little above 0."""
_NULL = msgspec.Raw(b"null")
_FIELDS = (b"event", b"id", b"retry")


class ReplyUnreadable(Exception):
    """The bytes are not a completion."""


class ErrorReported(ReplyUnreadable):
    """An error stands where a completion should: `body` is the server's text of it.

    `status` is the one that it would have had before a stream, None where the server does not say.
    """

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.status = _status_in(body)
        super().__init__(f"the server reported an error in the reply ({self.status or 'no status'})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How the answer's tokens are chosen; `thinking_tokens` are those that a reasoning model may have beside them."""

    max_tokens: int
    thinking_tokens: int = 0
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = 0


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of the model's output: its text and its token ids, none where the server sends none."""

    text: str
    token_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Thought:
    """A piece of the model's thinking: the number of its tokens, and their ids."""

    tokens: int
    token_ids: tuple[int, ...] = ()


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
        """All generated tokens: xAI and Gemini count the thinking in the total alone."""
        beside = (self.total_tokens or 0) - self.prompt_tokens if self.prompt_tokens else 0
        return max(self.completion_tokens, beside)

    @property
    def thinking_tokens(self) -> int:
        """Those of the generated tokens that the endpoint counts as thinking."""
        details = self.completion_tokens_details
        reported = (details.reasoning_tokens or 0) if details else 0
        return max(reported, self.generated_tokens - self.completion_tokens)

    @property
    def cached_tokens(self) -> int:
        """Prompt tokens read from the prefix cache; 0 where the endpoint does not report them."""
        return (self.prompt_tokens_details.cached_tokens or 0) if self.prompt_tokens_details else 0


class _ContentPart(msgspec.Struct, frozen=True):
    """A part of a content that is a list, as Mistral's is."""

    type: str = "text"
    text: str | None = None
    thinking: object = None


class ChatDelta(msgspec.Struct, frozen=True, gc=False):
    """A piece of a chat completion; servers name the model's thinking in one of two ways, or send it as a part."""

    content: str | tuple[_ContentPart, ...] | None = None
    reasoning: object = None
    reasoning_content: object = None

    @property
    def text(self) -> str:
        """The answer's part of it."""
        if isinstance(self.content, tuple):
            return "".join(part.text or "" for part in self.content if part.type == "text")
        return self.content or ""

    @property
    def thinking(self) -> str:
        """The thinking's part of it."""
        parts = self.content if isinstance(self.content, tuple) else ()
        return _text_in(self.reasoning or self.reasoning_content) + "".join(_text_in(part.thinking) for part in parts)


def _text_in(thinking: object) -> str:
    """Return the text of a server's thinking: a text, or parts and summaries of one."""
    match thinking:
        case str():
            return thinking
        case list():
            return "".join(map(_text_in, thinking))
        case dict():
            return "".join(_text_in(thinking.get(name)) for name in ("text", "summary", "content", "thinking"))
    return ""


class Choice(msgspec.Struct, frozen=True, gc=False):
    """A piece of the answer: `delta` in a chat, `text` in a continuation by token ids."""

    index: int = 0
    delta: ChatDelta | None = None
    text: str = ""
    token_ids: tuple[TokenId, ...] | None = None
    finish_reason: str | None = None


class Chunk(msgspec.Struct, frozen=True, gc=False):
    """One event of the stream; the first carries the prompt's ids, the last the usage and no choice."""

    choices: tuple[Choice, ...] | None = None
    prompt_token_ids: tuple[TokenId, ...] | None = None
    usage: msgspec.Raw = _NULL
    error: object = None


class ModelCard(msgspec.Struct, frozen=True):
    """A model that an endpoint serves, and how many tokens its context holds."""

    id: str
    max_model_len: Annotated[int, msgspec.Meta(ge=1, lt=2**31)] | None = None


class ModelList(msgspec.Struct, frozen=True):
    data: tuple[ModelCard, ...]


class TokenizeReply(msgspec.Struct, frozen=True):
    """The reply of vLLM's `/tokenize`."""

    tokens: tuple[TokenId, ...]
    token_strs: tuple[str | None, ...] | None = None


class DetokenizeReply(msgspec.Struct, frozen=True):
    prompt: str


class _AddedToken(msgspec.Struct, frozen=True):
    content: str


class TokenizerInfo(msgspec.Struct, frozen=True):
    """The reply of vLLM's `/tokenizer_info`: a `tokenizer_config.json`."""

    added_tokens_decoder: Mapping[str, _AddedToken] = {}


class _Top(msgspec.Struct, frozen=True):
    token: str
    logprob: LogProbability
    bytes: tuple[Annotated[int, msgspec.Meta(ge=0, le=255)], ...] | None = None


class _TopPlace(msgspec.Struct, frozen=True):
    top_logprobs: tuple[_Top, ...] | None = None


class _Logprobs(msgspec.Struct, frozen=True):
    content: tuple[_TopPlace, ...] | None = None


class _ProbeChoice(msgspec.Struct, frozen=True):
    message: ChatDelta | None = None
    logprobs: msgspec.Raw = _NULL


class _ProbeReply(msgspec.Struct, frozen=True):
    choices: tuple[_ProbeChoice, ...]
    usage: msgspec.Raw = _NULL


_CHUNKS = msgspec.json.Decoder(Chunk)
_PROBES = msgspec.json.Decoder(_ProbeReply)
_USAGE = msgspec.json.Decoder(ReportedUsage | None)
_LOGPROBS = msgspec.json.Decoder(_Logprobs | None)


@dataclass(frozen=True, slots=True)
class TopTokens:
    """The texts of the most likely next tokens with their natural log probabilities, and the usage of the call.

    `certain`: the server sent no log probabilities, and its word is the only one.
    """

    logprobs: Sequence[tuple[bytes, float]]
    usage: ReportedUsage
    certain: bool = False


class StreamDecoder:
    """Decodes the bytes of an event stream, wherever the network cut them; keeps how the answer ended.

    An event is one `data:` line; comments (keep-alives), other fields and empty lines are skipped. A usage that cannot
    be read is left out; an answer is not lost by it.
    https://html.spec.whatwg.org/multipage/server-sent-events.html
    """

    def __init__(self) -> None:
        self._rest = b""
        self._no_stream = b""  # the beginning of the lines that are not fields
        self._is_error = False  # the next data is an error
        self.done = False  # `[DONE]` was received: nothing follows
        self.finish_reason: str | None = None
        self.usage: ReportedUsage | None = None
        self.prompt_ids: tuple[int, ...] = ()

    def close(self) -> None:
        """Take the end of the bytes.

        Raises:
            ErrorReported: they ended with an error, and its status, in place of an event.
        """
        if self.finish_reason is None and (reported := ErrorReported(self._no_stream + self._rest)).status is not None:
            raise reported

    def feed(self, data: bytes) -> Iterator[Choice]:
        """Yield the pieces of the answer that are complete now, those before a broken chunk included.

        Raises:
            ReplyUnreadable: a chunk is not valid JSON, is too long, has another choice, or reports an error.
        """
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > LONGEST_CHUNK_BYTES:
            raise ReplyUnreadable(f"a chunk exceeds {LONGEST_CHUNK_BYTES} bytes")
        for line in lines:
            if self.done:
                return
            name, _, value = line.removeprefix(codecs.BOM_UTF8).partition(b":")
            if name == b"data":
                yield from self._choices(value)
            elif name:
                self._read_field(name, value, line)

    def _choices(self, value: bytes) -> Iterator[Choice]:
        try:
            chunk = _CHUNKS.decode(value)
        except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
            self.done = value.strip() == b"[DONE]"
            if value.strip() and not self.done:
                raise ReplyUnreadable("a chunk is not valid JSON") from exc
            return
        if self._is_error or chunk.error:
            raise ErrorReported(value)
        self.prompt_ids = chunk.prompt_token_ids or self.prompt_ids
        for choice in chunk.choices or ():
            if choice.index:
                raise ReplyUnreadable("it sends more than one choice")
            yield choice
            # Only now that it was taken: a choice that cannot be taken does not end the answer.
            self.finish_reason = choice.finish_reason or self.finish_reason
        self.usage = (_usage(chunk.usage) if chunk.usage != _NULL else None) or self.usage

    def _read_field(self, name: bytes, value: bytes, line: bytes) -> None:
        """Note that the next data is an error; raise ErrorReported for the field that is one itself."""
        if name == b"error":  # llama.cpp
            raise ErrorReported(value)
        if name not in _FIELDS:
            self._no_stream = (self._no_stream + line)[:_LONGEST_ERROR_BYTES]
        self._is_error = self._is_error or (name == b"event" and value.strip() == b"error")


def _usage(reported: msgspec.Raw) -> ReportedUsage | None:
    try:
        usage: ReportedUsage | None = _USAGE.decode(reported)
    except msgspec.MsgspecError:
        return None
    return usage


def read_top_tokens(body: bytes) -> TopTokens:
    """Return the most likely first tokens of a chat completion with `logprobs`.

    Raises:
        ReplyUnreadable: the body is not such a reply.
    """
    try:
        reply = _PROBES.decode(body)
        choice = reply.choices[0]
    except (msgspec.MsgspecError, UnicodeDecodeError, IndexError) as exc:
        reported = ErrorReported(body)
        raise (ReplyUnreadable("the probe's reply cannot be read") if reported.status is None else reported) from exc
    usage = _usage(reply.usage) or ReportedUsage()
    try:
        logprobs = _LOGPROBS.decode(choice.logprobs)
    except msgspec.MsgspecError:  # other servers have other shapes
        logprobs = None
    places = (logprobs and logprobs.content) or ()
    top = (places[0].top_logprobs if places else None) or ()
    # vLLM's bytes are those of the text, which of a cut character is a replacement character.
    texts = [(bytes(t.bytes) if t.bytes is not None else t.token.encode(), t.logprob) for t in top]
    if texts:
        return TopTokens(texts, usage)
    return TopTokens([((choice.message.text if choice.message else "").encode(), 0.0)], usage, certain=True)


FinishMeaning = Literal["stop", "length", "filtered"]
_FINISH_REASONS: Mapping[str, FinishMeaning] = {
    **dict.fromkeys(("stop", "eos_token", "stop_sequence", "end_turn", "complete"), "stop"),
    **dict.fromkeys(("tool_calls", "function_call"), "stop"),  # the model's own end, though no tool was offered
    **dict.fromkeys(("length", "max_tokens", "model_length", "repetition"), "length"),
    **dict.fromkeys(("content_filter", "content_filtered", "guardrail_intervened", "safety"), "filtered"),
    **dict.fromkeys(("prohibited_content", "recitation", "refusal", "sensitive"), "filtered"),
}
"""The words of OpenAI, vLLM, TGI, Mistral, Zhipu, and of gateways to Anthropic, Bedrock, Cohere and Gemini."""


def finish_meaning(reason: str | None) -> FinishMeaning | None:
    """Return the meaning of the reason that a server gives for an answer's end; None where that is a failure."""
    return _FINISH_REASONS.get((reason or "").lower())


_IDENTIFIER = re.compile(r"[\w.\[\]-]{1,60}", re.ASCII)


def refusal_names(body: bytes) -> str:
    """Return the names by which a server says what it refuses (`unsupported_parameter, max_tokens`), else nothing.

    Its sentence is left out: it may quote the prompt.
    """
    values = (_error_in(body).get(name) for name in ("code", "param", "type", "error_type"))
    return ", ".join(name for name in values if isinstance(name, str) and _IDENTIFIER.fullmatch(name))


def _error_in(body: bytes) -> Mapping[str, object]:
    """Return a server's description of an error: most have it in a field, some beside that or without one."""
    try:
        reply = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}
    error = reply.get("error") if isinstance(reply, dict) else None
    description = error if isinstance(error, dict) else reply
    return description if isinstance(description, dict) else {}


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
"""The names of errors in a stream, where servers give them no status."""


def _status_in(body: bytes) -> int | None:
    """Return the status of an error in a reply: a number, or the one that its name stands for."""
    error = _error_in(body)
    numbers = (str(error.get(name)) for name in ("code", "status_code"))
    status = next((int(number) for number in numbers if _STATUS.fullmatch(number)), None)
    return status or next((_STATUSES[name] for name in refusal_names(body).split(", ") if name in _STATUSES), None)
