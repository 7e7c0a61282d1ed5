"""One OpenAI-compatible endpoint: messages in, a stream of text and token ids out, within deadlines.

An answer begins at `/v1/chat/completions`. If the server sends token ids, a broken-off answer continues at
`/v1/completions` after the ids of prompt and answer; otherwise it continues from its text by `continue_final_message`.
Closing the generator closes the socket, which frees vLLM's slot within 0.1 s.

Only the used fields of replies are decoded, into msgspec types: decoding JSON is the main cost of a stream in Python.
"""

import asyncio
import math
import random
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Final, Literal, TypeVar
from uuid import uuid4

import aiohttp
import msgspec
from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, StatusCode
from yarl import URL

from chatbot.chat import Chat, Message, alternating
from chatbot.tokens import FAMILY_TOKENS, SpecialTokens
from knowledge.breaker import Breaker, BreakerSettings
from knowledge.model_connection import (
    Connection,
    EndpointAccess,
    EndpointFailed,
    EndpointRefused,
    Phase,
    ReplyBroken,
    RequestRejected,
    WrongModel,
)
from knowledge.profiles import Deadlines
from telemetry.setup import trace_headers

Group = Literal["primary", "canary", "fallback"]
Count = Annotated[int, msgspec.Meta(ge=0, lt=2**31)]

# The deadline of requests without generation, such as the model's name and token counts.
METADATA_SECONDS = 5.0
# The maximum wait of a complete answer for its usage, if the server leaves the connection open.
_USAGE_SECONDS = 1.0
# A chunk is the JSON of one token (about 300 bytes); the first also contains the prompt's ids.
LONGEST_CHUNK_BYTES = 4 * 2**20

# The context length of a server that does not report it.
UNKNOWN_CONTEXT = 2**31

_NO_THINKING = {"enable_thinking": False, "thinking": False}
"""Chat template switches: of Qwen and most others, and of Granite and DeepSeek V3.1."""

_Reply = TypeVar("_Reply")
_JITTER = random.SystemRandom()


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
    """A piece of a chat completion; servers send the thinking in `reasoning` or `reasoning_content`."""

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


class _ModelCard(msgspec.Struct, frozen=True):
    """A served model and its context length in tokens."""

    id: str
    max_model_len: Annotated[int, msgspec.Meta(ge=1, lt=2**31)] | None = None


class _ModelList(msgspec.Struct, frozen=True):
    data: tuple[_ModelCard, ...]


class TokenizerReply(msgspec.Struct, frozen=True):
    """The replies of vLLM's `/tokenize`, `/detokenize` (`prompt`) and `/tokenizer_info` (`added_tokens_decoder`)."""

    tokens: tuple[Count, ...] = ()
    token_strs: tuple[str | None, ...] | None = None
    prompt: str = ""
    added_tokens_decoder: dict[str, dict[str, Any]] = {}


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
            ReplyBroken: a chunk is not valid JSON, is too long, has a second choice, or reports an error.
        """
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > LONGEST_CHUNK_BYTES:
            raise ReplyBroken(f"a chunk exceeds {LONGEST_CHUNK_BYTES} bytes")
        for line in lines:
            name, _, value = line.partition(b":")
            if name != b"data" or self.done or not value.strip():
                continue
            if value.strip() == b"[DONE]":
                self.done = True
            else:
                yield from self._pieces(value)

    def _pieces(self, value: bytes) -> Iterator[Piece]:
        """Yield the pieces in an event's JSON, and store its prompt ids, finish reason and usage."""
        try:
            chunk = _CHUNKS.decode(value)
        except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
            raise ReplyBroken("a chunk is not valid JSON") from exc
        if chunk.error:
            raise ReplyBroken("the server reported an error in the stream")
        self.prompt_ids = chunk.prompt_token_ids or self.prompt_ids
        for choice in chunk.choices or ():
            if choice.index:
                raise ReplyBroken("the server sent more than one choice")
            delta = choice.delta or _NO_DELTA
            text = delta.content or choice.text
            thinking = delta.reasoning or delta.reasoning_content or ""
            if text or thinking or choice.token_ids:
                yield Piece(text, choice.token_ids or (), thinking)
            # Set after the piece is consumed: if the consumer raises, the answer has not ended.
            self.finish_reason = choice.finish_reason or self.finish_reason
        self.usage = chunk.usage or self.usage


@dataclass(frozen=True, slots=True)
class TopTokens:
    """The most likely next tokens with their natural log probabilities, and the usage of the call.

    `certain`: the server sent no log probabilities, so the word that it wrote has the probability 1.
    """

    logprobs: Sequence[tuple[bytes, float]]
    usage: ReportedUsage
    certain: bool = False


def read_top_tokens(body: bytes) -> TopTokens:
    """Return the most likely first tokens of a chat completion with `logprobs`.

    Raises:
        ReplyBroken: the body is not a valid completion.
    """
    try:
        reply = msgspec.json.decode(body)
        usage = msgspec.convert(reply.get("usage") or {}, ReportedUsage)
        choice = reply["choices"][0]
        logprobs = choice.get("logprobs") or {}
        positions = logprobs.get("content") or [{}]
        # For an incomplete character, vLLM's bytes are those of the replacement character.
        top = [
            (bytes(list(token.get("bytes") or token["token"].encode())), min(0.0, float(token["logprob"])))
            for token in positions[0].get("top_logprobs") or ()
        ]
        word = (choice["message"].get("content") or "").encode()
    except (msgspec.MsgspecError, LookupError, AttributeError, TypeError, ValueError) as exc:
        raise ReplyBroken("the probe's reply cannot be read") from exc
    return TopTokens(top, usage) if top else TopTokens([(word, 0.0)], usage, certain=True)


FINISH_REASONS: Mapping[str | None, Literal["stop", "length", "filtered"]] = {
    "stop": "stop",
    "eos_token": "stop",
    "tool_calls": "stop",  # it ends the answer although no tool was offered
    "length": "length",
    "repetition": "length",
    "content_filter": "filtered",
}
"""The meaning of servers' finish reasons; any other reason is a failure (vLLM's shutdown: abort)."""

OPENAI_FORM = frozenset({"return_token_ids", "cache_salt", "priority", "chat_template_kwargs"})
FORMS: Final = (
    frozenset[str](),
    frozenset({"priority"}),
    OPENAI_FORM,
    OPENAI_FORM | {"seed"},
    OPENAI_FORM | {"seed", "temperature", "top_p", "max_tokens"},
)
"""The fields that each form of a request omits. The forms are for vLLM, vLLM without priority scheduling, OpenAI,
servers without a seed, and OpenAI's reasoning models, which use `max_completion_tokens`.
"""


@dataclass(slots=True, kw_only=True)
class Capabilities:
    """An endpoint's capabilities; docs/models.md describes the consequence of each missing one."""

    token_ids: bool = False
    """It sends token ids, and continues an answer after them."""
    continues_text: bool = False
    """It honours `continue_final_message`."""
    tokenize: bool = False
    """It has vLLM's `/tokenize`."""
    usage: bool = False
    top_logprobs: int | None = 20
    """How many log probabilities to request; 0: it sends none; None: it rejects requests for one token."""
    thinks: bool = False
    opens_thinking: bool = False
    """Its template opens a thinking block, which the server leaves in the text."""
    omitted: frozenset[str] = frozenset()
    """The request fields that it rejects."""
    context_tokens: int = UNKNOWN_CONTEXT
    special_tokens: SpecialTokens = FAMILY_TOKENS
    special_ids: frozenset[int] = frozenset()
    template_specials: tuple[int, int] = (0, 0)
    """The number of special ids in a chat of two messages, and in each further exchange."""
    vocabulary: str = ""
    """A hash of model, tokenizer and template: endpoints with the same hash understand each other's ids."""
    counts: Sequence[int] = ()
    """Its token counts of each of `SAMPLES`, and of a chat of two messages with one token each."""

    @property
    def missing(self) -> tuple[str, ...]:
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
        return tuple(name for name, is_present in has.items() if not is_present)


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """A request for one generation on one endpoint; `until` is the whole answer's deadline in event loop time.

    To continue a partial answer, `ids` has the token ids of prompt and answer, or `prefix` the answer's text.
    """

    chat: Chat
    sampling: Sampling
    cache_salt: str
    priority: int = 0
    until: float = math.inf
    ids: Sequence[int] = ()
    prefix: str = ""


class Endpoint(Connection):
    """An endpoint of a group: the name and capabilities of its model, its breaker and its calls in flight.

    `entry` is the name of its MODELS_FILE entry. `checked`: the capabilities were detected since the breaker closed.
    """

    def __init__(  # noqa: PLR0913  its URL, its entry and its access
        self,
        http: aiohttp.ClientSession,
        url: str,
        deadlines: Deadlines,
        *,
        group: Group = "primary",
        entry: str = "primary",
        model: str | None = None,
        access: EndpointAccess | None = None,
        address: str | None = None,
        special_tokens: SpecialTokens = FAMILY_TOKENS,
        template_kwargs: Mapping[str, object] | None = None,
    ) -> None:
        base, self._version = _split_url(URL(url))
        super().__init__(http, base, access=access, address=address)
        self.deadlines = deadlines
        self.group = group
        self.entry = entry
        self.model = model or ""
        self.capabilities = Capabilities(omitted=OPENAI_FORM, special_tokens=special_tokens)  # until `detect` runs
        self.breaker = Breaker(BreakerSettings(), jitter=partial(_JITTER.uniform, 0.8, 1.0))
        self.in_flight = 0
        self.checked = False
        self.tracer = trace.get_tracer("chatbot.models.endpoint")
        self._template_kwargs = template_kwargs or {}
        self._fixed_model = model

    @property
    def available(self) -> bool:
        """Whether the endpoint may be called now."""
        return self.breaker.available and not self.stopped

    async def stream(self, request: GenerationRequest, decoder: StreamDecoder | None = None) -> AsyncGenerator[Piece]:
        """Generate an answer; `decoder` receives the prompt's ids, the usage and the finish reason."""
        decoder = decoder or StreamDecoder()
        phase, deadline = _next_deadline(request, "first token", self.deadlines.first_token(request.chat.tokens))
        body = self._body(request, stream=True, stream_options={"include_usage": True}, return_token_ids=True)
        route = self._version + ("completions" if request.ids else "chat/completions")
        with self._span(request) as span, self.translating_errors():
            response = await self.with_deadline(self.send("POST", route, body, _headers(span)), phase, deadline)
            try:
                await self.check_status(response)
                while not (decoder.done or response.content.at_eof()):
                    data = await self.with_deadline(response.content.readany(), phase, deadline)
                    for piece in decoder.feed(data):
                        yield piece
                        # Only a piece extends the deadline: a keep-alive or a chunk with only a role is not progress.
                        phase, deadline = _next_deadline(request, "between tokens", self.deadlines.between_tokens)
                    if decoder.finish_reason is not None:
                        deadline = min(deadline, _now() + _USAGE_SECONDS)
            except (EndpointFailed, aiohttp.ClientError, OSError):
                if decoder.finish_reason is None:  # otherwise the answer is complete, and only its usage is missing
                    raise
            finally:
                # Does not wait: after a complete answer the connection is already back in the pool.
                response.close()
            self._check_finish_reason(decoder, span)

    def _check_finish_reason(self, decoder: StreamDecoder, span: Span) -> None:
        """Raise an error if the answer broke off or was filtered; otherwise add its end and usage to the span."""
        meaning = FINISH_REASONS.get(decoder.finish_reason)
        if meaning == "filtered":
            raise RequestRejected(f"{self.name}: its content filter ended the answer")
        if meaning is None:
            raise ReplyBroken(f"{self.name}: the answer broke off (`finish_reason`: {decoder.finish_reason})")
        span.set_attribute("gen_ai.response.finish_reasons", [meaning])
        if decoder.usage is not None:
            span.set_attribute("gen_ai.usage.input_tokens", decoder.usage.prompt_tokens)
            span.set_attribute("gen_ai.usage.output_tokens", decoder.usage.completion_tokens)

    def _body(self, request: GenerationRequest, **extra_fields: object) -> Mapping[str, object]:
        """Return the body of a request, without the fields that the endpoint rejects."""
        sampling, omitted = request.sampling, self.capabilities.omitted
        fields: dict[str, object] = {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": sampling.seed,
            "cache_salt": request.cache_salt or None,
            "priority": request.priority or None,
            **extra_fields,
        }
        if request.ids:
            fields["prompt"] = request.ids
        else:
            messages = self.messages(request.chat.messages)
            if request.prefix:
                messages.append({"role": "assistant", "content": request.prefix})
                fields |= {"continue_final_message": True, "add_generation_prompt": False}
            switches = {} if request.chat.thinks else _NO_THINKING
            template_kwargs = {**self._template_kwargs, **switches}
            fields |= {"messages": messages, "chat_template_kwargs": template_kwargs or None}
        length_field = "max_completion_tokens" if "max_tokens" in omitted else "max_tokens"
        body = {name: value for name, value in fields.items() if value is not None and name not in omitted}
        return {**body, "model": self.model, length_field: sampling.max_tokens, **self.access.extra_body}

    def messages(self, messages: Sequence[Message]) -> list[Mapping[str, str]]:
        """Return the messages to send: special tokens neutralised, and consecutive messages of one role joined."""
        neutralise = self.capabilities.special_tokens.neutralise
        return [{"role": message.role, "content": neutralise(message.content)} for message in alternating(messages)]

    async def top_tokens(self, request: GenerationRequest) -> TopTokens:
        """Return the most likely next tokens."""
        top = self.capabilities.top_logprobs
        logprobs = {"logprobs": True, "top_logprobs": top} if top else {}
        body = self._body(request, **logprobs)
        with self._span(request) as span:
            _, deadline = _next_deadline(request, "first token", self.deadlines.first_token(request.chat.tokens))
            route = f"{self._version}chat/completions"
            return read_top_tokens(await self.exchange("POST", route, body, until=deadline, headers=_headers(span)))

    async def read_model(self) -> int | None:
        """Store the name of the configured model, or of the first served model; return its context length if reported.

        Raises:
            WrongModel: the server does not serve the configured model.
        """
        try:
            cards = (await self.ask(f"{self._version}models", None, _ModelList)).data
        except (EndpointRefused, ReplyBroken):  # the server hides its list
            if self._fixed_model is None:
                raise
            return None
        served = [card for card in cards if self._fixed_model in (None, card.id)]
        if not served:
            raise WrongModel(
                f"{self.name} serves {[card.id for card in cards]}, not {self._fixed_model}: set its model's name"
            )
        self.model = served[0].id
        # vLLM reports an adapter's context length with its base model.
        lengths = [card.max_model_len for card in (served[0], *cards)]
        return next((length for length in lengths if length is not None), None)

    async def ask(
        self, path: str, body: Mapping[str, object] | None, kind: type[_Reply], *, seconds: float = METADATA_SECONDS
    ) -> _Reply:
        """Return the reply of a route without generation; the request is a POST if it has a body, else a GET."""
        reply = await self.exchange("GET" if body is None else "POST", path, body, until=_now() + seconds)
        try:
            return msgspec.json.decode(reply, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
            raise ReplyBroken(f"{self.name}: the reply of {path} cannot be read") from exc

    async def tokenize(
        self, content: str | Sequence[Message], *, with_strings: bool = False, seconds: float = METADATA_SECONDS
    ) -> TokenizerReply:
        """Tokenize a text, or messages with the chat template, through vLLM's `/tokenize`."""
        body: dict[str, object] = {"model": self.model}
        if isinstance(content, str):
            body |= {"prompt": content, "add_special_tokens": False}
        else:
            body |= {"chat_template_kwargs": self._template_kwargs, "messages": self.messages(content)}
        if with_strings:
            body["return_token_strs"] = True
        reply = await self.ask("/tokenize", body, TokenizerReply, seconds=seconds)
        if not reply.tokens:
            raise ReplyBroken(f"{self.name}: its /tokenize is not vLLM's")
        return reply

    async def detokenize(self, ids: Sequence[int], *, seconds: float) -> str:
        """Return the text of token ids through vLLM's `/detokenize`."""
        body = {"model": self.model, "tokens": list(ids)}
        return (await self.ask("/detokenize", body, TokenizerReply, seconds=seconds)).prompt

    @contextmanager
    def _span(self, request: GenerationRequest) -> Iterator[Span]:
        """Open the client span without making it the current span: a generator may be closed in another context."""
        attributes: dict[str, str | int | float] = {
            "gen_ai.operation.name": "text_completion" if request.ids else "chat",
            "gen_ai.request.model": self.model,
            "gen_ai.request.max_tokens": request.sampling.max_tokens,
            "server.address": self.name,
        }
        span = self.tracer.start_span("model.generate", kind=SpanKind.CLIENT, attributes=attributes)
        try:
            yield span
        except EndpointFailed as exc:
            span.set_attribute("error.type", exc.outcome)
            span.set_status(StatusCode.ERROR)
            raise
        finally:
            span.end()


def _split_url(url: URL) -> tuple[URL, str]:
    """Split a URL into its base and its routes' version prefix: "v1/", or "" if the URL names an unversioned route."""
    path = url.path.rstrip("/")
    names_route = path.endswith("/chat/completions")
    prefix = path.removesuffix("/chat/completions")
    version = "" if names_route and not prefix.endswith("/v1") else "v1/"
    return url.with_path(prefix.removesuffix("/v1") or "/", keep_query=True), version


def _next_deadline(request: GenerationRequest, phase: Phase, seconds: float) -> tuple[Phase, float]:
    """Return the earlier deadline and its phase: `seconds` from now for `phase`, or the whole answer's deadline."""
    deadline = _now() + seconds
    return ("whole answer", request.until) if request.until < deadline else (phase, deadline)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _headers(span: Span) -> dict[str, str]:
    """Return the headers of a request in this span."""
    with trace.use_span(span, end_on_exit=False):
        return {"X-Request-Id": uuid4().hex, **trace_headers()}
