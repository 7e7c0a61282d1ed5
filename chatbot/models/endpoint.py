"""One OpenAI-compatible endpoint: messages in, a stream of text and token ids out, within deadlines.

An answer begins at `/v1/chat/completions`. If the server sends token ids, a broken-off answer continues at
`/v1/completions` after the ids of prompt and answer; otherwise it continues from its text by `continue_final_message`.
Closing the generator closes the socket, which frees vLLM's slot within 0.1 s.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, Awaitable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar
from uuid import uuid4

import aiohttp
import msgspec
from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, StatusCode
from yarl import URL

from chatbot.chat import Chat, Message, alternating
from chatbot.models.wire import (
    FINISH_REASONS,
    FORMS,
    Capabilities,
    ModelCard,
    ModelList,
    Piece,
    ReplyUnreadable,
    Sampling,
    StreamDecoder,
    TopTokens,
    read_top_tokens,
    refusal_names,
)
from knowledge.model_connection import (
    Access,
    Connection,
    EndpointFailed,
    EndpointRefused,
    Phase,
    ReplyBroken,
    RequestRejected,
    WrongModel,
)
from knowledge.profiles import Deadlines
from telemetry.setup import trace_headers

# The deadline of requests without generation, such as the model's name and token counts.
METADATA_SECONDS = 5.0
# The maximum wait of a complete answer for its usage, if the server leaves the connection open.
_USAGE_SECONDS = 1.0
# Azure's and Alibaba's error codes for filtered content.
_FILTERS = ("content_filter", "data_inspection_failed")
_NO_THINKING = {"enable_thinking": False, "thinking": False}
"""Chat template switches: of Qwen and most others, and of Granite and DeepSeek V3.1."""

OUR_FIELDS = FORMS[-1] | {
    *("model", "messages", "prompt", "stream", "stream_options", "max_completion_tokens", "logprobs", "top_logprobs"),
    *("continue_final_message", "add_generation_prompt"),
}
"""The fields of a request that `extra_body` cannot set."""

_Reply = TypeVar("_Reply")


class ContentFiltered(RequestRejected):
    """The server's content filter rejected the question or ended the answer."""


class EndpointStopped(EndpointFailed):
    """The bank has stopped the endpoint."""

    outcome = "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """A request for one generation on one endpoint; `until` is the whole answer's deadline in event loop time.

    A partial answer continues after `ids` (of prompt and answer) or after the text `prefix`.
    """

    chat: Chat
    sampling: Sampling
    cache_salt: str
    priority: int = 0
    until: float = math.inf
    ids: Sequence[int] = ()
    prefix: str = ""

    @property
    def prompt_tokens(self) -> int:
        """The number of tokens that the endpoint reads."""
        return len(self.ids) or self.chat.tokens


class Endpoint(Connection):
    """An endpoint with the name of its model, its capabilities, and whether the bank has stopped it."""

    def __init__(  # noqa: PLR0913  its address and access, and a tracer for tests
        self,
        http: aiohttp.ClientSession,
        url: str,
        deadlines: Deadlines,
        *,
        model: str | None = None,
        access: Access | None = None,
        template_kwargs: Mapping[str, object] | None = None,
        tracer: trace.Tracer | None = None,
    ) -> None:
        base, self._version = _base(URL(url))
        super().__init__(http, base, access=access)
        self.deadlines = deadlines
        self.model = model or ""
        self.stopped = False
        self.capabilities = Capabilities(omitted=FORMS[2])
        self._template_kwargs = template_kwargs or {}
        self._waits: set[asyncio.Timeout] = set()
        self._fixed_model = model
        self._tracer = tracer or trace.get_tracer("chatbot.models.endpoint")

    def learn(self, **found: Any) -> None:
        """Update fields of the capabilities."""
        self.capabilities = replace(self.capabilities, **found)

    def stop(self) -> None:
        """Reject new calls, and end the calls in progress with `EndpointStopped`."""
        self.stopped = True
        for wait in self._waits:
            if not wait.expired():
                wait.reschedule(_now())

    async def stream(self, request: GenerationRequest, decoder: StreamDecoder | None = None) -> AsyncGenerator[Piece]:
        """Generate an answer; `decoder` receives the prompt's ids, the usage and the finish reason."""
        decoder = decoder or StreamDecoder()
        phase: Phase = "first token"
        due = _now() + self.deadlines.first_token(request.chat.tokens)
        body = self._body(request, stream=True, stream_options={"include_usage": True}, return_token_ids=True)
        route = self._version + ("completions" if request.ids else "chat/completions")
        with self._span(request) as span, self.translating_errors():
            response = await self._within(self.send("POST", route, body, _headers(span)), phase, due, request)
            try:
                await self.check_status(response)
                while not (decoder.done or response.content.at_eof()):
                    for piece in decoder.feed(await self._within(response.content.readany(), phase, due, request)):
                        yield piece
                        # A keep-alive or a chunk with only a role is not progress.
                        phase, due = "between tokens", _now() + self.deadlines.between_tokens
                    if decoder.finish_reason is not None:
                        phase, due = "between tokens", min(due, _now() + _USAGE_SECONDS)
            except (EndpointFailed, ReplyUnreadable, aiohttp.ClientError, OSError):
                if decoder.finish_reason is None:  # otherwise the answer is complete and lacks only its usage
                    raise
            finally:
                # Does not wait: after a complete answer the connection is already back in the pool.
                response.close()
            self._end(decoder, span)

    async def _within(self, work: Awaitable[_Reply], phase: Phase, due: float, request: GenerationRequest) -> _Reply:
        """Await a part of a call within its deadline; `stop` ends the wait too."""
        if request.until < due:
            phase, due = "whole answer", request.until
        wait = asyncio.timeout_at(0 if self.stopped else due)
        self._waits.add(wait)
        try:
            async with wait:
                return await work
        except aiohttp.ServerTimeoutError:
            raise
        except TimeoutError as exc:
            raise self.timed_out(phase) from exc
        finally:
            self._waits.discard(wait)

    def _end(self, decoder: StreamDecoder, span: Span) -> None:
        """Raise if the stream broke off or the answer was aborted."""
        meaning = FINISH_REASONS.get(decoder.finish_reason)
        if meaning == "filtered":
            raise ContentFiltered(f"{self.name}: its content filter ended the answer")
        if meaning is None:
            raise ReplyBroken(f"{self.name}: the answer broke off (`finish_reason`: {decoder.finish_reason})")
        span.set_attribute("gen_ai.response.finish_reasons", [meaning])
        if decoder.usage is not None:
            span.set_attribute("gen_ai.usage.input_tokens", decoder.usage.prompt_tokens)
            span.set_attribute("gen_ai.usage.output_tokens", decoder.usage.completion_tokens)

    def _body(self, request: GenerationRequest, **more: object) -> Mapping[str, object]:
        """Return the body of a request with the fields that the endpoint accepts."""
        sampling, omitted = request.sampling, self.capabilities.omitted
        switches = {} if request.chat.thinks else _NO_THINKING
        fields: dict[str, object] = {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": sampling.seed,
            "cache_salt": request.cache_salt or None,
            "priority": request.priority or None,
            **more,
        }
        if request.ids:
            fields["prompt"] = request.ids
        else:
            messages = self.messages(request.chat.messages)
            if request.prefix:
                messages.append({"role": "assistant", "content": request.prefix})
                fields |= {"continue_final_message": True, "add_generation_prompt": False}
            fields |= {"messages": messages, "chat_template_kwargs": {**self._template_kwargs, **switches} or None}
        length = "max_completion_tokens" if "max_tokens" in omitted else "max_tokens"
        body = {name: value for name, value in fields.items() if value is not None and name not in omitted}
        return {**body, "model": self.model, length: sampling.max_tokens, **self.access.extra_body}

    def messages(self, messages: Sequence[Message]) -> list[Mapping[str, str]]:
        """Return the messages to send: special tokens neutralised, and consecutive messages of one role joined."""
        neutralise = self.capabilities.special.neutralise
        return [{"role": message.role, "content": neutralise(message.content)} for message in alternating(messages)]

    async def top_tokens(self, request: GenerationRequest) -> TopTokens:
        """Return the most likely next tokens."""
        top = self.capabilities.top_logprobs
        body = self._body(request, **({"logprobs": True, "top_logprobs": top} if top else {}))
        with self._span(request) as span, self.translating_errors():
            due = min(request.until, _now() + self.deadlines.first_token(request.chat.tokens))
            route = f"{self._version}chat/completions"
            exchange = self.exchange("POST", route, body, until=due, headers=_headers(span))
            return read_top_tokens(await self._within(exchange, "reply", due, request))

    async def model_card(self) -> ModelCard:
        """Return the card of the configured model, or of the first served model; store its name."""
        try:
            cards = (await self.ask(f"{self._version}models", None, ModelList)).data
        except (EndpointRefused, ReplyBroken):  # the server hides its list
            if self._fixed_model is None:
                raise
            return ModelCard(self._fixed_model)
        served = [card for card in cards if self._fixed_model in (None, card.id)]
        if not served:
            raise WrongModel(
                f"{self.name} serves {[card.id for card in cards]}, not {self._fixed_model}: set its model's name"
            )
        self.model = served[0].id
        # vLLM reports an adapter's context length with its base model.
        lengths = [card.max_model_len for card in (served[0], *cards)]
        return ModelCard(self.model, next(filter(None, lengths), None))

    async def ask(
        self, path: str, body: Mapping[str, object] | None, kind: type[_Reply], *, seconds: float = METADATA_SECONDS
    ) -> _Reply:
        """Return the reply of a route without generation, such as `/tokenize`; without a body, send a GET."""
        if body is not None:
            template = {"chat_template_kwargs": self._template_kwargs} if "messages" in body else {}
            body = {"model": self.model, **template, **body}
        reply = await self.exchange("GET" if body is None else "POST", path, body, until=_now() + seconds)
        try:
            return msgspec.json.decode(reply, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
            raise ReplyBroken(f"{self.name}: the reply of {path} cannot be read") from exc

    def rejected(self, status: int, beginning: bytes, *, by_firewall: bool) -> EndpointRefused:
        """Return the error of a rejected request; it shows only names from the reply, which may quote the prompt."""
        names = refusal_names(beginning)
        if status == 400 and any(name in names for name in _FILTERS):
            return ContentFiltered(f"{self.name}: its content filter refused the question")
        reason = "by a firewall before it" if by_firewall else names
        return RequestRejected(
            f"{self.name}: it refused the request ({status}{': ' if reason else ''}{reason})", body=beginning
        )

    def timed_out(self, phase: Phase) -> EndpointFailed:
        """Return the error of an expired wait; `stop` expires waits too."""
        return EndpointStopped(f"{self.name}: stopped") if self.stopped else super().timed_out(phase)

    @contextmanager
    def translating_errors(self) -> Iterator[None]:
        """Translate the exceptions of the driver and the decoder."""
        with super().translating_errors():
            try:
                yield
            except ReplyUnreadable as exc:
                raise ReplyBroken(f"{self.name}: {exc}") from exc

    @contextmanager
    def _span(self, request: GenerationRequest) -> Iterator[Span]:
        """Open the client span, but not as the current span: a generator may be closed in another context."""
        attributes: dict[str, str | int | float] = {
            "gen_ai.operation.name": "text_completion" if request.ids else "chat",
            "gen_ai.request.model": self.model,
            "gen_ai.request.max_tokens": request.sampling.max_tokens,
            "server.address": self.name,
        }
        span = self._tracer.start_span("model.generate", kind=SpanKind.CLIENT, attributes=attributes)
        try:
            yield span
        except EndpointFailed as exc:
            span.set_attribute("error.type", exc.outcome)
            span.set_status(StatusCode.ERROR)
            raise
        finally:
            span.end()


def _base(url: URL) -> tuple[URL, str]:
    """Split an address into its base and the version prefix of its routes ("v1/" or "")."""
    path = url.path.rstrip("/")
    before = path.removesuffix("/chat/completions")
    version = "" if before != path and not before.endswith("/v1") else "v1/"
    return url.with_path(before.removesuffix("/v1") or "/", keep_query=True), version


def _now() -> float:
    return asyncio.get_running_loop().time()


def _headers(span: Span) -> dict[str, str]:
    with trace.use_span(span, end_on_exit=False):
        return {"X-Request-Id": uuid4().hex, **trace_headers()}
