"""The messages of the OpenAI API: a stream's chunks, a probe's reply, the names in a refusal. No I/O.

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

TokenId = Annotated[int, msgspec.Meta(ge=0, lt=2**32)]
Count = Annotated[int, msgspec.Meta(ge=0, lt=2**31)]


class ReplyUnreadable(Exception):
    """The bytes are not a completion."""


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
    """A piece of the model's output: its text, and its token ids where the server sends them."""

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
        return max(self.completion_tokens, (self.total_tokens or 0) - self.prompt_tokens)

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


class ChatDelta(msgspec.Struct, frozen=True, gc=False):
    """A piece of a chat completion; servers have one of two names for the model's thinking."""

    content: str | None = None
    reasoning: object = None
    reasoning_content: object = None

    @property
    def thinking(self) -> str:
        """The thinking's text."""
        thinking = self.reasoning or self.reasoning_content
        return thinking if isinstance(thinking, str) else ""


class Choice(msgspec.Struct, frozen=True, gc=False):
    """A piece of the answer: `delta` in a chat, `text` in a continuation by token ids."""

    index: int = 0
    delta: ChatDelta | None = None
    text: str = ""
    token_ids: tuple[TokenId, ...] | None = None
    finish_reason: str | None = None


class _Chunk(msgspec.Struct, frozen=True, gc=False):
    """One event of the stream; the first carries the prompt's ids, the last the usage and no choice."""

    choices: tuple[Choice, ...] | None = None
    prompt_token_ids: tuple[TokenId, ...] | None = None
    usage: ReportedUsage | None = None
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


_CHUNKS = msgspec.json.Decoder(_Chunk)


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

    An event is one `data:` line; comments (keep-alives), other fields and empty lines are skipped.
    https://html.spec.whatwg.org/multipage/server-sent-events.html
    """

    def __init__(self) -> None:
        self._rest = b""
        self.done = False  # `[DONE]` was received: nothing follows
        self.finish_reason: str | None = None
        self.usage: ReportedUsage | None = None
        self.prompt_ids: tuple[int, ...] = ()

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
            name, _, value = line.removeprefix(codecs.BOM_UTF8).partition(b":")
            if name == b"data" and not self.done and value.strip():
                yield from self._choices(value)

    def _choices(self, value: bytes) -> Iterator[Choice]:
        try:
            chunk = _CHUNKS.decode(value)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
            self.done = value.strip() == b"[DONE]"
            if self.done:
                return
            raise ReplyUnreadable("a chunk is not valid JSON") from exc
        if chunk.error:
            raise ReplyUnreadable("the server reported an error in the stream")
        self.prompt_ids = chunk.prompt_token_ids or self.prompt_ids
        for choice in chunk.choices or ():
            if choice.index:
                raise ReplyUnreadable("it sends more than one choice")
            yield choice
            # Only now that it was taken: a choice that cannot be taken does not end the answer.
            self.finish_reason = choice.finish_reason or self.finish_reason
        self.usage = chunk.usage or self.usage


def read_top_tokens(body: bytes) -> TopTokens:
    """Return the most likely first tokens of a chat completion with `logprobs`.

    Raises:
        ReplyUnreadable: the body is not such a reply.
    """
    try:
        reply = msgspec.json.decode(body)
        usage = msgspec.convert(reply.get("usage") or {}, ReportedUsage)
        choice = reply["choices"][0]
        places = (choice.get("logprobs") or {}).get("content") or [{}]
        # vLLM's bytes are those of the text, which of a cut character is a replacement character.
        top = [
            (bytes(list(token.get("bytes") or token["token"].encode())), min(0.0, float(token["logprob"])))
            for token in places[0].get("top_logprobs") or ()
        ]
        word = (choice["message"].get("content") or "").encode()
    except (msgspec.MsgspecError, LookupError, AttributeError, TypeError, ValueError, RecursionError) as exc:
        raise ReplyUnreadable("the probe's reply cannot be read") from exc
    return TopTokens(top, usage) if top else TopTokens([(word, 0.0)], usage, certain=True)


FinishMeaning = Literal["stop", "length", "filtered"]
FINISH_REASONS: Mapping[str | None, FinishMeaning] = {
    **dict.fromkeys(("stop", "eos_token", "tool_calls"), "stop"),  # a tool call, though no tool was offered, is an end
    **dict.fromkeys(("length", "repetition"), "length"),
    "content_filter": "filtered",
}
"""What the reason that a server gives for an answer's end means; any other is a failure (vLLM's shutdown: abort)."""


_IDENTIFIER = re.compile(r"[\w.\[\]-]{1,60}", re.ASCII)


def refusal_names(body: bytes) -> str:
    """Return the names by which a server says what it refuses (`unsupported_parameter, max_tokens`), or nothing.

    Its sentence is left out: it may quote the prompt.
    """
    try:
        error = msgspec.json.decode(body)["error"]
        values = [error.get(name) for name in ("code", "param", "type")]
    except (msgspec.MsgspecError, LookupError, AttributeError, TypeError, ValueError, RecursionError):
        return ""
    return ", ".join(name for name in values if isinstance(name, str) and _IDENTIFIER.fullmatch(name))
