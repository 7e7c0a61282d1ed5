"""One OpenAI-compatible endpoint: token ids in, a stream of text and token ids out, within deadlines.

Prompts go as token ids to `/v1/completions`, so that a start and a continuation are the same call. Closing the
generator closes the socket, which frees vLLM's slot within 0.1 s.

EndpointFailed          the call failed; `outcome` is a closed set for metrics
├── Unreachable         unreachable   no connection
├── QueueFull           busy          it works, but its queue is full
├── DeadlineExceeded    slow          a deadline of the profile passed; `phase` says which
├── ReplyBroken         broken        an error status, a cut connection, undecodable bytes, an aborted answer
├── RequestRejected     refused       it says that our request is at fault; another endpoint would say the same
│   ├── ContentFiltered               its content filter refuses the question, or ended the answer
│   ├── FirewallRefused               what stands before it refused the request, and may not stand before another
│   └── OutputLimitReached            a model that thinks (OpenAI's) used up its tokens before its answer began
├── WrongModel          unfit         it serves another model or tokenizer than ours
├── AccessDenied        unfit         it refuses our key or certificate, or we do not trust its certificate
└── EndpointStopped     stopped       the bank has stopped it
"""

import asyncio
import ssl
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import ClassVar, Literal, TypeVar
from uuid import uuid4

import aiohttp
import msgspec
from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, StatusCode
from yarl import URL

from chatbot.models.completion import (
    Choice,
    CompletionBroken,
    CompletionDecoder,
    CompletionRequest,
    Delta,
    ErrorReported,
    GenerationEnd,
    ModelCard,
    ModelList,
    Sampling,
    StreamOptions,
    TokenizeReply,
    TopTokens,
    finish_meaning,
    read_top_tokens,
    refusal_names,
)
from chatbot.models.thinking import Thought
from chatbot.tokenizer import Message
from knowledge.profiles import Deadlines
from knowledge.tls import tls_reason
from telemetry.setup import trace_headers

FailureName = Literal["unreachable", "busy", "slow", "broken", "refused", "unfit", "stopped"]
Phase = Literal["first token", "between tokens", "whole answer"]

# Three connection attempts that time out must leave time for the hand-off within 2 s.
CONNECT_SECONDS = 0.6
# Requests without generation: the model's name, the tokenizer.
METADATA_SECONDS = 5.0
# uvicorn, and so vLLM, closes an idle connection after 5 s: ours are kept for less, or a call would meet a closed one.
KEEP_ALIVE_SECONDS = 4.0
_LONGEST_REPLY_BYTES = 16 * 2**20
# How long an answer that is whole waits for its usage, at a server that leaves the connection open.
_USAGE_SECONDS = 1.0
# How much of what a server says of a refusal is read, and how long it is waited for.
_LONGEST_REFUSAL_BYTES = 8192
_REFUSAL_SECONDS = 1.0
# vLLM's admission control, Ollama and OpenAI answer 503 with these words; any other (a proxy's, a broken engine's, one
# of a server that loads its model) is a failure.
_BUSY_WORDS = (b"on a different instance", b"server busy", b"overloaded")

# Azure's and Alibaba's word for what their filters refuse.
_FILTERS = ("content_filter", "data_inspection_failed")
_LIMIT_REACHED = b"model output limit was reached"
# OpenAI's reasoning models refuse `logprobs` with a 403 of this type.
_BAD_REQUEST = "invalid_request_error"

_Reply = TypeVar("_Reply", bound=msgspec.Struct)


class EndpointFailed(Exception):
    """A call to an endpoint failed."""

    outcome: ClassVar[FailureName] = "broken"


class Unreachable(EndpointFailed):
    outcome = "unreachable"


class QueueFull(EndpointFailed):
    outcome = "busy"


class DeadlineExceeded(EndpointFailed):
    outcome = "slow"

    def __init__(self, phase: Phase, endpoint: str) -> None:
        super().__init__(f"{endpoint}: the deadline for the {phase} passed")
        self.phase = phase


class ReplyBroken(EndpointFailed):
    outcome = "broken"


class RequestRejected(EndpointFailed):
    outcome = "refused"


class ContentFiltered(RequestRejected):
    pass


class FirewallRefused(RequestRejected):
    pass


class OutputLimitReached(RequestRejected):
    pass


class WrongModel(EndpointFailed):
    outcome = "unfit"


class AccessDenied(EndpointFailed):
    outcome = "unfit"


class EndpointStopped(EndpointFailed):
    outcome = "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """One generation asked of one endpoint; `until` is the event loop's time at which the whole answer is due."""

    prompt_ids: Sequence[int]
    sampling: Sampling
    cache_salt: str
    priority: int
    end_ids: tuple[int, ...]
    until: float
    messages: tuple[Message, ...] = ()
    """The same prompt, for an endpoint that takes no token ids."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What an endpoint is given with every request: headers (with its key), our TLS, and fields of its own."""

    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    tls: ssl.SSLContext | None = None
    extra_body: Mapping[str, object] = field(default_factory=dict)
    address: str | None = None
    """The address of the URL's host to connect to; TLS verifies the host all the same."""


class Endpoint:
    """An endpoint over a shared HTTP session, with the name of its model and whether the bank has stopped it."""

    has_token_ids: ClassVar[bool] = True
    """Whether it takes and sends token ids, so that an answer that breaks off goes on elsewhere from the next token."""
    _call: ClassVar[str] = "completions"
    _provider: ClassVar[str] = "vllm"
    _operation: ClassVar[str] = "text_completion"
    _connect_seconds: ClassVar[float] = CONNECT_SECONDS

    def __init__(
        self,
        http: aiohttp.ClientSession,
        url: str,
        deadlines: Deadlines,
        *,
        model: str | None = None,
        access: Access | None = None,
        tracer: trace.Tracer | None = None,
    ) -> None:
        self.url, self._version = _base(URL(url))
        self._access = access or Access()
        address = self._access.address
        self._at = self.url if address is None else self.url.with_host(address)
        self._host_header = {} if address is None else {"Host": self.url.host_port_subcomponent or ""}
        self._server_name = self.url.host if address is not None and self.url.scheme == "https" else None
        self.name = f"{self._at.host}:{self._at.port}{self.url.path.rstrip('/')}"
        self.deadlines = deadlines
        self.model = model or ""
        self.stopped = False
        self._waits: set[asyncio.Timeout] = set()
        self._streams: set[aiohttp.ClientResponse] = set()
        self._fixed_model = model
        self._http = http
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

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[Delta | Thought | GenerationEnd]:
        """Generate: deltas, then exactly one `GenerationEnd`.

        Raises:
            EndpointFailed: a subclass says why.
        """
        loop, decoder = asyncio.get_running_loop(), CompletionDecoder()
        phase: Phase = "first token"
        first = due = loop.time() + self.deadlines.first_token(len(request.prompt_ids))
        with self._span(request) as span:
            async with self._opened(self._body(request), request, _headers(span), first) as response:
                try:
                    with self._translating_errors():
                        while not (decoder.done or response.content.at_eof()):
                            try:
                                async with asyncio.timeout_at(min(due, request.until)):
                                    # `content.iter_any()` without a generator around it: the bytes as they arrive.
                                    data = await response.content.readany()
                            except TimeoutError as exc:
                                raise DeadlineExceeded(_sooner(phase, due, request.until)[0], self.name) from exc
                            for choice in decoder.feed(data):
                                # Each token of vLLM's passes here.
                                ours = self.has_token_ids and choice.delta is None and choice.token_ids
                                for part in (Delta(choice.text, ours),) if ours else self._parts(choice):
                                    yield part
                                    # A keep-alive, or a chat's chunk with nothing but its role, is no progress.
                                    phase, due = "between tokens", loop.time() + self.deadlines.between_tokens
                            if decoder.finish_reason is not None:
                                phase, due = "between tokens", min(due, loop.time() + _USAGE_SECONDS)
                        decoder.close()
                except EndpointFailed as exc:
                    if decoder.finish_reason is None:  # otherwise the answer is whole and only its usage is missing
                        self._check_refusal(exc, phase)
                        raise
                yield self._end(decoder, span)

    def _end(self, decoder: CompletionDecoder, span: Span) -> GenerationEnd:
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
        end = GenerationEnd(meaning, decoder.usage)
        _set_usage(span, end)
        return end

    def _body(self, request: GenerationRequest) -> object:
        """Return the body of a streamed generation."""
        body = CompletionRequest(
            model=self.model,
            prompt=request.prompt_ids,
            max_tokens=request.sampling.max_tokens,
            temperature=request.sampling.temperature,
            top_p=request.sampling.top_p,
            seed=request.sampling.seed,
            stop=request.sampling.stop,
            stop_token_ids=request.end_ids,
            stream=True,
            stream_options=StreamOptions(include_usage=True),
            return_token_ids=True,
            cache_salt=request.cache_salt or None,
            priority=request.priority,
        )
        return self._with_extra(body)

    def _parts(self, choice: Choice) -> Iterator[Delta | Thought]:
        """Yield what a choice of a chunk holds.

        Raises:
            EndpointFailed: a subclass says why.
        """
        if choice.delta is not None:
            raise ReplyBroken(f"{self.name}: it sends chat completions where none were asked for")
        if choice.text and choice.token_ids is None:
            raise WrongModel(
                f"{self.name} sends no token ids: serve it with vLLM 0.10.2 or later, let a gateway pass them, or say "
                "`api: openai` in its entry of a MODELS_FILE"
            )
        yield Delta(choice.text, choice.token_ids or ())

    async def top_tokens(self, request: GenerationRequest, *, top: int) -> TopTokens:
        """Return the `top` most likely next tokens.

        Raises:
            EndpointFailed: a subclass says why.
        """
        deadline = min(request.until, _now() + self.deadlines.first_token(len(request.prompt_ids)))
        with self._span(request) as span:
            async with (
                self._deadline("first token", deadline),
                await self._send(
                    "POST", self._version + self._call, self._top_body(request, top), _headers(span)
                ) as response,
            ):
                await self._check_status(response)
                top_tokens = self._read_top(await self._whole(response))
            span.set_attribute("gen_ai.usage.input_tokens", top_tokens.usage.prompt_tokens)
            return top_tokens

    def _top_body(self, request: GenerationRequest, top: int) -> object:
        """Return the body of a request for one token and the likeliest in its place."""
        body = CompletionRequest(
            model=self.model,
            prompt=request.prompt_ids,
            max_tokens=1,
            temperature=0.0,
            logprobs=top,
            return_tokens_as_token_ids=True,
            cache_salt=request.cache_salt or None,
            priority=request.priority,
        )
        return self._with_extra(body)

    def _read_top(self, reply: bytes) -> TopTokens:
        return read_top_tokens(reply)

    async def model_card(self) -> ModelCard:
        """Return the card of the model to ask for (the first one served, where no name is set), and keep its name.

        Raises:
            EndpointFailed: a subclass says why.
        """
        async with (
            self._deadline("first token", _now() + METADATA_SECONDS),
            await self._send("GET", f"{self._version}models") as response,
        ):
            await self._check_status(response)
            cards = self._decode(await self._whole(response), ModelList).data
        served = [card for card in cards if self._fixed_model in (None, card.id)]
        if not served:
            raise WrongModel(
                f"{self.name} serves {[card.id for card in cards]}, not {self._fixed_model}: set its model's name"
            )
        self.model = served[0].id
        if served[0].max_model_len is None:  # vLLM tells an adapter's with its base model
            return msgspec.structs.replace(
                served[0], max_model_len=next(filter(None, (card.max_model_len for card in cards)), None)
            )
        return served[0]

    async def tokenize(self, text: Mapping[str, object]) -> list[int]:
        """Return the ids that the endpoint's own tokenizer gives; `text` holds fields of vLLM's `/tokenize`.

        Raises:
            EndpointFailed: a subclass says why.
        """
        body = {"model": self.model, **text}
        async with (
            self._deadline("first token", _now() + METADATA_SECONDS),
            await self._send("POST", "/tokenize", body) as response,
        ):
            if response.status in (404, 405, 501):
                raise WrongModel(
                    f"{self.name} has no /tokenize, so it is no vLLM, or a gateway keeps that back: let it through, or "
                    "say `api: openai` in its entry of a MODELS_FILE (its answers cannot go on elsewhere)"
                )
            await self._check_status(response)
            return list(self._decode(await self._whole(response), TokenizeReply).tokens)

    async def metrics(self, *, within_seconds: float) -> str:
        """Return the endpoint's metrics in Prometheus' text format.

        Raises:
            EndpointFailed: a subclass says why.
        """
        async with (
            self._deadline("first token", _now() + within_seconds),
            await self._send("GET", "/metrics") as response,
        ):
            await self._check_status(response)
            return (await self._whole(response)).decode("utf-8", "replace")

    @asynccontextmanager
    async def _opened(
        self, body: object, request: GenerationRequest, headers: Mapping[str, str], first: float
    ) -> AsyncGenerator[aiohttp.ClientResponse]:
        """Ask for the stream, whose first token is due at `first`; its socket is closed however the block is left."""
        async with self._deadline(*_sooner("first token", first, request.until)):
            response = await self._send("POST", self._version + self._call, body, headers)
        try:
            async with self._deadline(*_sooner("first token", first, request.until)):
                await self._check_status(response)
            self._streams.add(response)
            yield response
        finally:
            self._streams.discard(response)
            # Does not wait: after a whole answer the connection has gone back to the pool by itself.
            response.close()

    async def _send(
        self, method: Literal["GET", "POST"], path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> aiohttp.ClientResponse:
        return await self._http.request(
            method,
            self._at.joinpath(path.removeprefix("/")).with_query(self._at.query),
            data=None if body is None else msgspec.json.encode(body),
            allow_redirects=False,  # a prompt and a key go to the configured address and nowhere else
            headers={
                "Content-Type": "application/json",
                **self._host_header,
                **self._access.headers,
                **(headers or {}),
            },
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._connect_seconds),
            ssl=self._access.tls or True,
            server_hostname=self._server_name,
        )

    def _with_extra(self, body: msgspec.Struct) -> object:
        extra = self._access.extra_body
        return {**msgspec.to_builtins(body), **extra} if extra else body

    async def _check_status(self, response: aiohttp.ClientResponse) -> None:
        """Raise what a status other than 200 means."""
        if response.status == 200:
            return
        beginning = await _beginning(response)
        response.close()
        # A firewall in front of it refuses a question by a page; a wrong key is refused at the first call, a GET.
        by_firewall = response.status == 403 and response.method == "POST" and beginning.lstrip().startswith(b"<")
        raise self._failure(response.status, beginning, by_firewall=by_firewall)

    def _failure(self, status: int, said: bytes, *, by_firewall: bool = False) -> EndpointFailed:
        """Return what a status means, with the beginning of what is said of it."""
        names = refusal_names(said)
        if status == 429 and "insufficient_quota" in names:
            return AccessDenied(f"{self.name}: its quota is used up")
        if status in (429, 529) or (status == 503 and any(words in said for words in _BUSY_WORDS)):
            return QueueFull(f"{self.name}: its queue is full")
        if status in (401, 403) and _BAD_REQUEST not in names and not by_firewall:
            return AccessDenied(f"{self.name}: it refused the key ({status}): set the one of this endpoint")
        if status in (400, 403, 413, 422):
            return self._rejected(status, names, said, by_firewall=by_firewall)
        return ReplyBroken(f"{self.name}: status {status}")

    def _reported(self, exc: ErrorReported) -> EndpointFailed:
        """Return what an error in a reply that began with 200 means: the same as its status before a stream.

        vLLM calls every error a bad request, also the death of its engine; an `openai` may be one, and is tried out.
        """
        failure = None if exc.status is None else self._failure(exc.status, exc.body)
        is_doubtful = self.has_token_ids and isinstance(failure, RequestRejected)
        return ReplyBroken(f"{self.name}: {exc}") if failure is None or is_doubtful else failure

    def _check_refusal(self, exc: EndpointFailed, phase: Phase) -> None:
        """Raise ReplyBroken for the refusal of a request that was being answered: only a filter refuses so late."""
        if phase == "between tokens" and isinstance(exc, RequestRejected) and not isinstance(exc, ContentFiltered):
            raise ReplyBroken(f"{self.name}: it gave up in mid-answer ({exc})") from exc

    def _rejected(self, status: int, names: str, beginning: bytes, *, by_firewall: bool) -> RequestRejected:
        if by_firewall:
            return FirewallRefused(f"{self.name}: what stands before it refused the request ({status})")
        if status == 400 and any(name in names for name in _FILTERS):
            return ContentFiltered(f"{self.name}: its content filter refused the question")
        if status == 400 and _LIMIT_REACHED in beginning:
            return OutputLimitReached(f"{self.name}: it has used up its tokens before its answer began")
        return RequestRejected(f"{self.name}: it refused the request ({status}{': ' if names else ''}{names})")

    async def _whole(self, response: aiohttp.ClientResponse) -> bytes:
        """Return the body of a reply that is no stream.

        Raises:
            ReplyBroken: it is longer than any such reply.
        """
        body = bytearray()
        async for data in response.content.iter_any():
            body += data
            if len(body) > _LONGEST_REPLY_BYTES:
                raise ReplyBroken(f"{self.name}: a reply without an end")
        return bytes(body)

    def _decode(self, body: bytes, kind: type[_Reply]) -> _Reply:
        try:
            return msgspec.json.decode(body, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
            raise ReplyBroken(f"{self.name}: an answer that cannot be read") from exc

    @asynccontextmanager
    async def _deadline(self, phase: Phase, deadline: float) -> AsyncGenerator[None]:
        """Set a deadline (the event loop's time) and translate the driver's exceptions."""
        with self._translating_errors():
            try:
                async with asyncio.timeout_at(deadline) as wait:
                    with self._stoppable(wait):
                        yield
            except aiohttp.ServerTimeoutError:
                raise
            except TimeoutError as exc:
                raise self._timed_out(phase) from exc

    @contextmanager
    def _stoppable(self, wait: asyncio.Timeout) -> Iterator[None]:
        """Let `stop` end a wait.

        Raises:
            EndpointStopped: `stop` was called before.
        """
        if self.stopped:
            raise self._stop_failure()
        self._waits.add(wait)
        try:
            yield
        finally:
            self._waits.discard(wait)

    def _timed_out(self, phase: Phase) -> EndpointFailed:
        """Return the failure that the end of a wait means: `stop` ends waits, too."""
        return self._stop_failure() if self.stopped else DeadlineExceeded(phase, self.name)

    def _stop_failure(self) -> EndpointStopped:
        return EndpointStopped(f"{self.name}: stopped")

    @contextmanager
    def _translating_errors(self) -> Iterator[None]:
        """Translate the driver's exceptions."""
        try:
            yield
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as exc:
            if reason := tls_reason(exc):
                raise self._no_tls(reason) from exc
            raise Unreachable(f"{self.name}: no connection") from exc
        except ErrorReported as exc:
            raise self._reported(exc) from exc
        except CompletionBroken as exc:
            raise ReplyBroken(f"{self.name}: {exc}") from exc
        except (aiohttp.ClientError, OSError, RecursionError) as exc:
            if reason := tls_reason(exc):
                raise self._no_tls(reason) from exc
            # Only its class: a parser's message quotes what it could not parse, which may be a customer's answer.
            hint = " (a server that wants a client certificate does this, too)" if self.url.scheme == "https" else ""
            raise ReplyBroken(f"{self.name}: {type(exc).__name__}{hint}") from exc

    def _no_tls(self, reason: str) -> AccessDenied:
        return AccessDenied(f"{self.name}: no TLS connection ({reason}): set `ca_file`, `cert_file` and `key_file`")

    @contextmanager
    def _span(self, request: GenerationRequest) -> Iterator[Span]:
        """Open the client span; not as the current one, since a generator may be closed in another context."""
        attributes: dict[str, str | int | float] = {
            "gen_ai.operation.name": self._operation,
            "gen_ai.provider.name": self._provider,
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


@asynccontextmanager
async def open_session() -> AsyncGenerator[aiohttp.ClientSession]:
    """Open the session that all endpoints share; connections are limited by admission, time by each call."""
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_SECONDS),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
        cookie_jar=aiohttp.DummyCookieJar(),
        # A gateway that compresses a stream keeps its tokens back until the end.
        headers={"Accept-Encoding": "identity"},
    ) as http:
        yield http


async def _beginning(response: aiohttp.ClientResponse) -> bytes:
    """Return the beginning of what a server says of a refusal, as far as it comes."""
    said = b""
    with suppress(TimeoutError, aiohttp.ClientError):
        async with asyncio.timeout(_REFUSAL_SECONDS):
            while data := await response.content.read(_LONGEST_REFUSAL_BYTES - len(said)):
                said += data
    return said


def _base(url: URL) -> tuple[URL, str]:
    """Return an address without its version, and that: most name theirs with `/v1`, some with the call, too.

    Where a call has no `v1` before it, it stands beside its `models`.
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


def _set_usage(span: Span, end: GenerationEnd) -> None:
    span.set_attribute("gen_ai.response.finish_reasons", [end.finish_reason])
    if end.usage is not None:
        span.set_attribute("gen_ai.usage.input_tokens", end.usage.prompt_tokens)
        span.set_attribute("gen_ai.usage.output_tokens", end.usage.completion_tokens)
        span.set_attribute("gen_ai.usage.cache_read.input_tokens", end.usage.cached_tokens)
