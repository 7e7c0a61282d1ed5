"""One OpenAI-compatible endpoint: messages in, a stream of text and token ids out, within deadlines.

An answer begins at `/v1/chat/completions`. Where the server sends token ids, a broken-off one continues at
`/v1/completions` with the ids of prompt and answer, else from its text by `continue_final_message`. Closing the
generator closes the socket, which frees vLLM's slot within 0.1 s. The errors are those of `knowledge.model_connection`,
and of them:

RequestRejected
├── ContentFiltered     its content filter refuses the question, or ended the answer
├── FirewallRefused     a firewall before it refused the request, and may not be before another
└── OutputLimitReached  a model that thinks (OpenAI's) used up its tokens before its answer began
EndpointStopped         stopped; the bank has stopped it
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Literal, TypeVar
from uuid import uuid4

import aiohttp
import msgspec
from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, StatusCode
from yarl import URL

from chatbot.chat import Chat, alternating
from chatbot.models.capabilities import OPTIONAL, PLAIN, Capabilities
from chatbot.models.wire import (
    Choice,
    ErrorReported,
    ModelCard,
    ModelList,
    Piece,
    ReplyUnreadable,
    ReportedUsage,
    Sampling,
    StreamDecoder,
    Thought,
    TopTokens,
    finish_meaning,
    read_top_tokens,
    refusal_names,
)
from knowledge.model_connection import (
    Access,
    Connection,
    DeadlineExceeded,
    EndpointFailed,
    EndpointRefused,
    Phase,
    ReplyBroken,
    RequestRejected,
    WrongModel,
)
from knowledge.profiles import Deadlines
from telemetry.setup import trace_headers

# Requests without generation: the model's name, counts of tokens.
METADATA_SECONDS = 5.0
# How long an answer that is whole waits for its usage, at a server that leaves the connection open.
_USAGE_SECONDS = 1.0
# Azure's and Alibaba's word for what their filters refuse.
_FILTERS = ("content_filter", "data_inspection_failed")
_LIMIT_REACHED = b"model output limit was reached"
TOP_TOKENS = 20
"""The default of vLLM's `--max-logprobs`."""
_NO_THINKING = {"enable_thinking": False, "thinking": False}
"""The switches of chat templates: Qwen's and most others', and Granite's and DeepSeek V3.1's."""

OUR_FIELDS = frozenset(
    {"model", "messages", "prompt", "stream", "max_tokens", "max_completion_tokens", "stop"}
    | {"continue_final_message", "add_generation_prompt", *OPTIONAL}
)
"""The fields of a request that `extra_body` cannot set."""

_Reply = TypeVar("_Reply")


class ContentFiltered(RequestRejected):
    pass


class FirewallRefused(RequestRejected):
    pass


class OutputLimitReached(RequestRejected):
    pass


class EndpointStopped(EndpointFailed):
    outcome = "stopped"


@dataclass(frozen=True, slots=True)
class PromptIds:
    """The ids of the rendered prompt, as the endpoint's first chunk has them."""

    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class GenerationEnd:
    """The last part of a generation; `usage` is the endpoint's own count."""

    finish_reason: Literal["stop", "length"]
    usage: ReportedUsage | None


Part = PromptIds | Piece | Thought | GenerationEnd


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """One generation asked of one endpoint; `until` is the event loop's time at which the whole answer is due.

    A begun answer continues after `ids` (of prompt and answer), or after `begun_text`.
    """

    chat: Chat
    sampling: Sampling
    cache_salt: str
    priority: int
    until: float
    ids: Sequence[int] = ()
    begun_text: str = ""


class Endpoint(Connection):
    """An endpoint with the name of its model, its capabilities, and whether the bank has stopped it."""

    def __init__(  # noqa: PLR0913  how it is reached, and a tracer for tests
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
        self.capabilities: Capabilities = PLAIN
        self.count_thinking: Callable[[str], int] = len
        self._template_kwargs = template_kwargs or {}
        self._waits: set[asyncio.Timeout] = set()
        self._streams: set[aiohttp.ClientResponse] = set()
        self._fixed_model = model
        self._tracer = tracer or trace.get_tracer("chatbot.models.endpoint")

    def stop(self) -> None:
        """Permit no call, and end the calls in progress with `EndpointStopped`."""
        self.stopped = True
        for wait in self._waits:
            if not wait.expired():
                wait.reschedule(_now())
        for response in self._streams:
            response.content.set_exception(self._stop_failure())

    def resume(self) -> None:
        """Permit calls again."""
        self.stopped = False

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[Part]:  # noqa: C901  each token passes here
        """Generate: parts, then exactly one `GenerationEnd`.

        Raises:
            EndpointFailed: a subclass says why.
        """
        loop, decoder = asyncio.get_running_loop(), StreamDecoder()
        phase: Phase = "first token"
        first = due = loop.time() + self.deadlines.first_token(request.chat.tokens)
        needs_prompt = self.capabilities.token_ids and not request.ids
        with self._span(request) as span:
            async with self._opened(request, _headers(span), first) as response:
                try:
                    with self.translating_errors():
                        while not (decoder.done or response.content.at_eof()):
                            try:
                                async with asyncio.timeout_at(min(due, request.until)):
                                    # `content.iter_any()` without a generator around it: the bytes as they arrive.
                                    data = await response.content.readany()
                            except TimeoutError as exc:
                                raise DeadlineExceeded(_sooner(phase, due, request.until)[0], self.name) from exc
                            for choice in decoder.feed(data):
                                if needs_prompt and decoder.prompt_ids:
                                    yield PromptIds(decoder.prompt_ids)
                                    needs_prompt = False
                                for part in self._parts(choice):
                                    yield part
                                    # A keep-alive, or a chunk with nothing but its role, is no progress.
                                    phase, due = "between tokens", loop.time() + self.deadlines.between_tokens
                            if decoder.finish_reason is not None:
                                phase, due = "between tokens", min(due, loop.time() + _USAGE_SECONDS)
                        decoder.close()
                except EndpointFailed as exc:
                    if decoder.finish_reason is None:  # otherwise the answer is whole and only its usage is missing
                        self._check_refusal(exc, phase)
                        raise
                yield self._end(decoder, span)

    def _parts(self, choice: Choice) -> Iterator[Piece | Thought]:
        delta, ids = choice.delta, choice.token_ids or ()
        if delta is None:
            if choice.text or ids:
                yield Piece(choice.text, ids)
            return
        if (thinking := delta.thinking) and not delta.text:
            yield Thought(len(ids) or self.count_thinking(thinking), ids)
            return
        if thinking:  # the end of the thinking and the beginning of the answer in one chunk
            yield Thought(0 if ids else self.count_thinking(thinking))
        if delta.text or ids:
            yield Piece(delta.text, ids)

    def _end(self, decoder: StreamDecoder, span: Span) -> GenerationEnd:
        """Return the end of a whole answer.

        Raises:
            EndpointFailed: the stream broke off, or the answer was aborted.
        """
        reason = decoder.finish_reason
        if reason is None:
            raise ReplyBroken(f"{self.name}: the stream ended without a reason (`finish_reason`), so it may be cut off")
        meaning = finish_meaning(reason)
        if meaning == "filtered":
            raise ContentFiltered(f"{self.name}: its content filter ended the answer")
        if meaning is None:  # vLLM says "abort" when it shuts down
            raise ReplyBroken(f"{self.name}: the answer was aborted ({reason})")
        span.set_attribute("gen_ai.response.finish_reasons", [meaning])
        if (usage := decoder.usage) is not None:
            span.set_attribute("gen_ai.usage.input_tokens", usage.prompt_tokens)
            span.set_attribute("gen_ai.usage.output_tokens", usage.completion_tokens)
            span.set_attribute("gen_ai.usage.cache_read.input_tokens", usage.cached_tokens)
        return GenerationEnd(meaning, decoder.usage)

    def _body(self, request: GenerationRequest, **more: object) -> Mapping[str, object]:
        """Return the body of a request with the fields that the endpoint takes."""
        able, sampling, chat = self.capabilities, request.sampling, request.chat
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
            fields["chat_template_kwargs"] = {**self._template_kwargs, **({} if chat.thinks else _NO_THINKING)} or None
            if request.begun_text:
                fields |= {"continue_final_message": True, "add_generation_prompt": False}
        body = {name: value for name, value in fields.items() if value is not None and name not in able.omitted}
        if not request.ids:
            messages = [
                {"role": message.role, "content": able.special.neutralise(message.content)}
                for message in alternating(chat.messages)
            ]
            begun = [{"role": "assistant", "content": request.begun_text}] if request.begun_text else []
            body["messages"] = messages + begun
        return {**body, "model": self.model, able.length_field: sampling.max_tokens, **self.access.extra_body}

    async def top_tokens(self, request: GenerationRequest) -> TopTokens:
        """Return the most likely next tokens.

        Raises:
            EndpointFailed: a subclass says why.
        """
        until = min(request.until, _now() + self.deadlines.first_token(request.chat.tokens))
        body = self._body(request, logprobs=True, top_logprobs=self.capabilities.top_logprobs)
        with self._span(request) as span:
            async with (
                self.deadline("first token", until),
                await self.send("POST", f"{self._version}chat/completions", body, _headers(span)) as response,
            ):
                await self.check_status(response)
                top_tokens = read_top_tokens(await self.whole(response))
            span.set_attribute("gen_ai.usage.input_tokens", top_tokens.usage.prompt_tokens)
            return top_tokens

    async def model_card(self) -> ModelCard:
        """Return the card of the model to ask for (the first one served, where no name is set), and keep its name.

        Where the name is set, a server that keeps its list back is asked all the same.

        Raises:
            EndpointFailed: a subclass says why.
        """
        try:
            cards = (await self._asked("GET", f"{self._version}models", ModelList)).data
        except (EndpointRefused, ReplyBroken):
            if self._fixed_model is None:
                raise
            return ModelCard(self._fixed_model)
        served = [card for card in cards if self._fixed_model in (None, card.id)]
        if not served:
            raise WrongModel(
                f"{self.name} serves {[card.id for card in cards]}, not {self._fixed_model}: set its model's name"
            )
        self.model = served[0].id
        # vLLM has an adapter's with its base model.
        length = served[0].max_model_len or next(filter(None, (card.max_model_len for card in cards)), None)
        return ModelCard(self.model, length)

    async def ask(
        self, path: str, body: Mapping[str, object] | None, kind: type[_Reply], *, seconds: float = METADATA_SECONDS
    ) -> _Reply:
        """Return the reply of one of vLLM's routes beside the API, such as `/tokenize`; a GET without a body.

        Raises:
            EndpointFailed: a subclass says why.
        """
        if body is None:
            return await self._asked("GET", path, kind, seconds=seconds)
        body = {"model": self.model, **body}
        if "messages" in body and self._template_kwargs:
            body["chat_template_kwargs"] = self._template_kwargs
        return await self._asked("POST", path, kind, body, seconds=seconds)

    async def _asked(
        self,
        method: Literal["GET", "POST"],
        path: str,
        kind: type[_Reply],
        body: object = None,
        *,
        seconds: float = METADATA_SECONDS,
    ) -> _Reply:
        reply = await self.exchange(method, path, body, until=_now() + seconds)
        try:
            return msgspec.json.decode(reply, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
            raise ReplyBroken(f"{self.name}: the reply of {path} cannot be read") from exc

    async def metrics(self, *, within_seconds: float) -> str:
        """Return the endpoint's metrics in Prometheus' text format.

        Raises:
            EndpointFailed: a subclass says why.
        """
        if self.capabilities is not PLAIN and not self.capabilities.tokenize:  # no vLLM
            raise ReplyBroken(f"{self.name}: it has no metrics")
        return (await self.exchange("GET", "/metrics", until=_now() + within_seconds)).decode("utf-8", "replace")

    @asynccontextmanager
    async def _opened(
        self, request: GenerationRequest, headers: Mapping[str, str], first: float
    ) -> AsyncGenerator[aiohttp.ClientResponse]:
        """Ask for the stream, whose first token is due at `first`; its socket is closed however the block is left."""
        route = "completions" if request.ids else "chat/completions"
        options = {"stream_options": {"include_usage": True}, "return_token_ids": True}
        body = self._body(request, stream=True, **options)
        async with self.deadline(*_sooner("first token", first, request.until)):
            response = await self.send("POST", self._version + route, body, headers)
        try:
            async with self.deadline(*_sooner("first token", first, request.until)):
                await self.check_status(response)
            self._streams.add(response)
            yield response
        finally:
            self._streams.discard(response)
            # Does not wait: after a whole answer the connection has gone back to the pool by itself.
            response.close()

    def rejected(self, status: int, beginning: bytes, *, by_firewall: bool) -> EndpointRefused:
        """Return the meaning of a refused request; of its reply only names are shown, since it may quote the prompt."""
        names = refusal_names(beginning)
        if by_firewall:
            return FirewallRefused(f"{self.name}: a firewall before it refused the request ({status})")
        if status == 400 and any(name in names for name in _FILTERS):
            return ContentFiltered(f"{self.name}: its content filter refused the question")
        if status == 400 and _LIMIT_REACHED in beginning:
            return OutputLimitReached(f"{self.name}: it has used up its tokens before its answer began")
        message = f"{self.name}: it refused the request ({status}{': ' if names else ''}{names})"
        return RequestRejected(message, body=beginning)

    def _reported(self, exc: ErrorReported) -> EndpointFailed:
        """Return the meaning of an error in a reply that began with 200: the same as its status before a stream.

        vLLM calls every error a bad request, also the death of its engine.
        """
        failure = None if exc.status is None else self.failure(exc.status, exc.body)
        is_doubtful = self.capabilities.token_ids and isinstance(failure, RequestRejected)
        return ReplyBroken(f"{self.name}: {exc}") if failure is None or is_doubtful else failure

    def _check_refusal(self, exc: EndpointFailed, phase: Phase) -> None:
        """Raise ReplyBroken for the refusal of a request that was being answered: only a filter refuses so late."""
        if phase == "between tokens" and isinstance(exc, RequestRejected) and not isinstance(exc, ContentFiltered):
            raise ReplyBroken(f"{self.name}: it gave up in mid-answer ({exc})") from exc

    @asynccontextmanager
    async def deadline(self, phase: Phase, until: float) -> AsyncGenerator[asyncio.Timeout]:
        """Set a deadline, which `stop` ends too.

        Raises:
            EndpointStopped: `stop` was called before.
        """
        if self.stopped:
            raise self._stop_failure()
        async with super().deadline(phase, until) as wait:
            self._waits.add(wait)
            try:
                yield wait
            finally:
                self._waits.discard(wait)

    def timed_out(self, phase: Phase) -> EndpointFailed:
        """Return the failure that the end of a wait means: `stop` ends waits, too."""
        return self._stop_failure() if self.stopped else super().timed_out(phase)

    def _stop_failure(self) -> EndpointStopped:
        return EndpointStopped(f"{self.name}: stopped")

    @contextmanager
    def translating_errors(self) -> Iterator[None]:
        """Translate the driver's exceptions, and the decoder's."""
        with super().translating_errors():
            try:
                yield
            except ErrorReported as exc:
                raise self._reported(exc) from exc
            except ReplyUnreadable as exc:
                raise ReplyBroken(f"{self.name}: {exc}") from exc

    @contextmanager
    def _span(self, request: GenerationRequest) -> Iterator[Span]:
        """Open the client span; not as the current one, since a generator may be closed in another context."""
        attributes: dict[str, str | int | float] = {
            "gen_ai.operation.name": "text_completion" if request.ids else "chat",
            "gen_ai.provider.name": "vllm" if self.capabilities.tokenize else "openai",
            "gen_ai.request.model": self.model,
            "gen_ai.request.max_tokens": request.sampling.max_tokens,
            "gen_ai.request.temperature": request.sampling.temperature,
            "server.address": self.url.host or "",
            "server.port": self.url.port or 0,
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
    """Return an address without its version, and that: most name theirs with `/v1`, some with the call, too.

    Where a call has no `v1` before it, it is a sibling of its `models`.
    """
    path = url.path.rstrip("/")
    before = path.removesuffix("/completions").removesuffix("/chat") if path.endswith("/completions") else path
    version = "" if before != path and not before.endswith("/v1") else "v1/"
    return url.with_path(before.removesuffix("/v1") or "/", keep_query=True), version


def _sooner(phase: Phase, deadline: float, until: float) -> tuple[Phase, float]:
    return (phase, deadline) if deadline < until else ("whole answer", until)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _headers(span: Span) -> dict[str, str]:
    with trace.use_span(span, end_on_exit=False):
        return {"X-Request-Id": uuid4().hex, **trace_headers()}
