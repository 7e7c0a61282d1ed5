"""The messages of the OpenAI API, and each server's capabilities. No I/O.

Only the used fields are decoded, into msgspec types, because decoding JSON is the main cost of a stream in Python.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Literal

import msgspec

from chatbot.tokens import FAMILY_TOKENS, SpecialTokens

# A chunk is the JSON of one token (about 300 bytes); the first also contains the prompt's ids.
LONGEST_CHUNK_BYTES = 4 * 2**20

# The context length of a server that does not report it.
UNKNOWN_CONTEXT = 2**31

Count = Annotated[int, msgspec.Meta(ge=0, lt=2**31)]


class ReplyUnreadable(Exception):
    """The reply is not a valid completion."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """The sampling parameters; `thinking_tokens` is a reasoning model's additional limit for thinking."""

    max_tokens: int
    thinking_tokens: int = 0
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = 0


class Piece(msgspec.Struct, frozen=True, gc=False):
    """A piece of the model's output: its text, its token ids if the server sends them, and its thinking."""

    text: str
    token_ids: tuple[int, ...] = ()
    thinking: str = ""


class _Details(msgspec.Struct, frozen=True, gc=False):
    cached_tokens: Count | None = None
    reasoning_tokens: Count | None = None


_NO_DETAILS = _Details()


class ReportedUsage(msgspec.Struct, frozen=True, gc=False):
    """The token counts that an endpoint reports."""

    prompt_tokens: Count = 0
    completion_tokens: Count = 0
    total_tokens: Count | None = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None

    @property
    def generated_tokens(self) -> int:
        """All generated tokens; xAI and Gemini count the thinking only in the total."""
        return max(self.completion_tokens, (self.total_tokens or 0) - self.prompt_tokens)

    @property
    def thinking_tokens(self) -> int:
        """The generated tokens that the endpoint counts as thinking."""
        reported = (self.completion_tokens_details or _NO_DETAILS).reasoning_tokens or 0
        return max(reported, self.generated_tokens - self.completion_tokens)

    @property
    def cached_tokens(self) -> int:
        """Prompt tokens read from the prefix cache; 0 if not reported."""
        return (self.prompt_tokens_details or _NO_DETAILS).cached_tokens or 0


class _Delta(msgspec.Struct, frozen=True, gc=False):
    """A piece of a chat completion; servers use one of two names for the thinking."""

    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None


_NO_DELTA = _Delta()


class _Choice(msgspec.Struct, frozen=True, gc=False):
    """A piece of the answer: `delta` in a chat, `text` in a continuation by token ids."""

    index: int = 0
    delta: _Delta | None = None
    text: str = ""
    token_ids: tuple[Count, ...] | None = None
    finish_reason: str | None = None


class _Chunk(msgspec.Struct, frozen=True, gc=False):
    """One event of the stream; the first has the prompt's ids, the last has the usage and no choice."""

    choices: tuple[_Choice, ...] | None = None
    prompt_token_ids: tuple[Count, ...] | None = None
    usage: ReportedUsage | None = None
    error: object = None


class ModelCard(msgspec.Struct, frozen=True):
    """A served model and its context length in tokens."""

    id: str
    max_model_len: Annotated[int, msgspec.Meta(ge=1, lt=2**31)] | None = None


class ModelList(msgspec.Struct, frozen=True):
    data: tuple[ModelCard, ...]


class TokenizeReply(msgspec.Struct, frozen=True):
    """The reply of vLLM's `/tokenize`."""

    tokens: tuple[Count, ...]
    token_strs: tuple[str | None, ...] | None = None


_CHUNKS = msgspec.json.Decoder(_Chunk)


class StreamDecoder:
    """Decodes an event stream from arbitrary byte chunks; stores the finish reason and the usage.

    An event is one `data:` line; comments (keep-alives), other fields and empty lines are skipped.
    https://html.spec.whatwg.org/multipage/server-sent-events.html
    """

    def __init__(self) -> None:
        self._rest = b""
        self.done = False  # `[DONE]` was received
        self.finish_reason: str | None = None
        self.usage: ReportedUsage | None = None
        self.prompt_ids: tuple[int, ...] = ()

    def feed(self, data: bytes) -> Iterator[Piece]:
        """Yield the complete pieces of the answer, including those before a broken chunk.

        Raises:
            ReplyUnreadable: a chunk is not valid JSON, is too long, has a second choice, or reports an error.
        """
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > LONGEST_CHUNK_BYTES:
            raise ReplyUnreadable(f"a chunk exceeds {LONGEST_CHUNK_BYTES} bytes")
        for line in lines:
            name, _, value = line.partition(b":")
            if name != b"data" or self.done or not value.strip():
                continue
            if value.strip() == b"[DONE]":
                self.done = True
            else:
                yield from self._pieces(value)

    def _pieces(self, value: bytes) -> Iterator[Piece]:
        try:
            chunk = _CHUNKS.decode(value)
        except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
            raise ReplyUnreadable("a chunk is not valid JSON") from exc
        if chunk.error:
            raise ReplyUnreadable("the server reported an error in the stream")
        self.prompt_ids = chunk.prompt_token_ids or self.prompt_ids
        for choice in chunk.choices or ():
            if choice.index:
                raise ReplyUnreadable("it sends more than one choice")
            delta = choice.delta or _NO_DELTA
            text, thinking = delta.content or choice.text, delta.reasoning or delta.reasoning_content or ""
            if text or thinking or choice.token_ids:
                yield Piece(text, choice.token_ids or (), thinking)
            # Set only after the piece was consumed, so that a choice that fails does not end the answer.
            self.finish_reason = choice.finish_reason or self.finish_reason
        self.usage = chunk.usage or self.usage


@dataclass(frozen=True, slots=True)
class TopTokens:
    """The most likely next tokens with their natural log probabilities, and the usage of the call.

    `certain`: the server sent no log probabilities, so its word counts as the only possible one.
    """

    logprobs: Sequence[tuple[bytes, float]]
    usage: ReportedUsage
    certain: bool = False


def read_top_tokens(body: bytes) -> TopTokens:
    """Return the most likely first tokens of a chat completion with `logprobs`.

    Raises:
        ReplyUnreadable: the body is not a valid completion.
    """
    try:
        reply = msgspec.json.decode(body)
        usage = msgspec.convert(reply.get("usage") or {}, ReportedUsage)
        choice = reply["choices"][0]
        places = (choice.get("logprobs") or {}).get("content") or [{}]
        # For an incomplete character, vLLM's bytes are those of the replacement character.
        top = [
            (bytes(list(token.get("bytes") or token["token"].encode())), min(0.0, float(token["logprob"])))
            for token in places[0].get("top_logprobs") or ()
        ]
        word = (choice["message"].get("content") or "").encode()
    except (msgspec.MsgspecError, LookupError, AttributeError, TypeError, ValueError) as exc:
        raise ReplyUnreadable("the probe's reply cannot be read") from exc
    return TopTokens(top, usage) if top else TopTokens([(word, 0.0)], usage, certain=True)


FINISH_REASONS: Mapping[str | None, Literal["stop", "length", "filtered"]] = {
    **dict.fromkeys(
        ("stop", "eos_token", "tool_calls"), "stop"
    ),  # a tool call ends the answer although no tool was offered
    **dict.fromkeys(("length", "repetition"), "length"),
    "content_filter": "filtered",
}
"""The meaning of servers' finish reasons; any other reason is a failure (vLLM's shutdown: abort)."""
_IDENTIFIER = re.compile(r"[\w.\[\]-]{1,60}", re.ASCII)


def refusal_names(body: bytes) -> str:
    """Return the code and names in a server's error (`unsupported_parameter, max_tokens`), or "".

    The server's message is omitted because it may quote the prompt.
    """
    try:
        error = msgspec.json.decode(body)["error"]
        values = [error.get(name) for name in ("code", "param", "type")]
    except (msgspec.MsgspecError, LookupError, AttributeError, TypeError, ValueError):
        return ""
    return ", ".join(name for name in values if isinstance(name, str) and _IDENTIFIER.fullmatch(name))


_EXTENSIONS = frozenset({"return_token_ids", "cache_salt", "priority", "chat_template_kwargs"})
FORMS: Final = (
    frozenset[str](),
    frozenset({"priority"}),
    _EXTENSIONS,
    _EXTENSIONS | {"seed"},
    _EXTENSIONS | {"seed", "temperature", "top_p", "max_tokens"},
)
"""The fields that each form of a request omits: for vLLM, vLLM without priority scheduling, OpenAI, servers without a
seed, and OpenAI's reasoning models, which use `max_completion_tokens`.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """An endpoint's capabilities; docs/models.md describes the consequence of each missing one.

    `omitted`: request fields that it rejects. `continues_text`: it honours `continue_final_message`. `tokenize`: it has
    vLLM's `/tokenize`. `top_logprobs`: how many log probabilities to request (0: it sends none; None: it rejects
    questions for one token). `opens_thinking`: its template opens a thinking block, which the server leaves in the
    text. `template_specials`: the number of special ids in a chat of two messages, and in each further exchange.
    `vocabulary`: a hash of model, tokenizer and template, within which ids are interchangeable. `counts`: its token
    counts of `SAMPLES` and of a chat of two messages of one token.
    """

    token_ids: bool = False
    continues_text: bool = False
    tokenize: bool = False
    usage: bool = False
    top_logprobs: int | None = 20
    thinks: bool = False
    opens_thinking: bool = False
    omitted: frozenset[str] = frozenset()
    context_tokens: int = UNKNOWN_CONTEXT
    special: SpecialTokens = FAMILY_TOKENS
    special_ids: frozenset[int] = frozenset()
    template_specials: tuple[int, int] = (0, 0)
    vocabulary: str = ""
    counts: Sequence[int] = ()

    @property
    def lacks(self) -> tuple[str, ...]:
        """The names of the missing capabilities, as shown in the log and in `/readyz`."""
        has = {
            "token_ids": self.token_ids,
            "tokenize": self.tokenize,
            "cache_salt": "cache_salt" not in self.omitted,
            "priority": "priority" not in self.omitted,
            "logprobs": bool(self.top_logprobs),
            "usage": self.usage,
            "continuation": self.token_ids or self.continues_text,
        }
        return tuple(name for name, there in has.items() if not there)
