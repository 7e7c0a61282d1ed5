"""One OpenAI-compatible endpoint: token ids in, a stream of text and token ids out, within deadlines.

Prompts go as token ids to `/v1/completions`, so that a start and a continuation are the same call. Closing the
generator closes the socket at once, which frees vLLM's slot within 0.1 s (facts.md section 2).

EndpointFailed        the call did not end as it should; `outcome` is a closed set for metrics
├── Unreachable       unreachable   no connection
├── Busy              busy          alive, but its queue is full
├── TooSlow           slow          a deadline of the profile passed; `phase` says which
├── Broken            broken        an error status, a cut connection, garbage, an aborted answer
├── Refused           refused       it says that our request is at fault; another endpoint would, too
├── Unfit             unfit         it serves another model or tokenizer than ours
└── Stopped           stopped       the bank lets nobody ask it
"""

import asyncio
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeVar
from uuid import uuid4

import aiohttp
import msgspec
from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, StatusCode
from yarl import URL

from chatbot.models.completion import (
    CompletionBroken,
    CompletionChunk,
    CompletionDecoder,
    CompletionRequest,
    Delta,
    ModelCard,
    ModelList,
    ReportedUsage,
    Sampling,
    StreamOptions,
    TokenizeReply,
    TopTokens,
    read_top_tokens,
)
from telemetry.setup import trace_headers

FailureName = Literal["unreachable", "busy", "slow", "broken", "refused", "unfit", "stopped"]
Phase = Literal["first token", "between tokens", "whole answer"]

# Three endpoints that drop our packets must still leave time for the hand-off within 2 s (reliability.md).
CONNECT_SECONDS = 0.6
# Questions about the endpoint itself (its model, its tokenizer): no generation.
ASK_SECONDS = 5.0
# uvicorn, and so vLLM, closes an idle connection after 5 s: keep ours for less, or the next call meets a closed one.
KEEP_ALIVE_SECONDS = 4.0
# vLLM's admission control answers 503 with this advice; any other 503 (a proxy's, a broken engine's) is a failure.
_BUSY_ADVICE = b"on a different instance"

_T = TypeVar("_T", bound=msgspec.Struct)


class EndpointFailed(Exception):
    """A call to an endpoint did not end as it should."""

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


class WrongModel(EndpointFailed):
    outcome = "unfit"


class EndpointStopped(EndpointFailed):
    outcome = "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Speeds:
    """How fast a profile's endpoints are; every deadline follows from it."""

    prefill: float  # prompt tokens per second
    whole: float  # seconds for a whole answer
    between: float = 10.0  # seconds between two tokens
    at_once: float = 2.0  # seconds for a first token before any prefill

    def first_token(self, prompt_tokens: int) -> float:
        """Return the deadline for the first token, in seconds."""
        return self.at_once + 3 * prompt_tokens / self.prefill

    def late(self, prompt_tokens: int) -> float:
        """Return after how many seconds a first token counts as slow: three quarters of the deadline."""
        return 0.75 * self.first_token(prompt_tokens)


@dataclass(frozen=True, slots=True)
class GenerationEnd:
    """The endpoint is through; usage as it counted."""

    finish_reason: Literal["stop", "length"]
    usage: ReportedUsage | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """One generation asked of one endpoint; `until` is the loop's time at which the whole answer must be there."""

    prompt_ids: Sequence[int]
    sampling: Sampling
    cache_salt: str
    priority: int
    end_ids: tuple[int, ...]
    until: float


class Endpoint:
    """An endpoint over a shared session; it keeps the model's name, and whether it may be asked."""

    def __init__(
        self,
        http: aiohttp.ClientSession,
        url: str,
        speeds: Speeds,
        *,
        model: str | None = None,
        tracer: trace.Tracer | None = None,
    ) -> None:
        self.url = URL(url)
        self.name = f"{self.url.host}:{self.url.port}{self.url.path.rstrip('/')}"
        self.speeds = speeds
        self.model = model or ""
        self.stopped = False
        self._waits: set[asyncio.Timeout] = set()
        self._fixed_model = model
        self._http = http
        self._tracer = tracer or trace.get_tracer("chatbot.models.endpoint")

    def stop(self) -> None:
        """Let nobody ask it, and end what it is being asked, with `Stopped`."""
        self.stopped = True
        for wait in self._waits:
            if not wait.expired():
                wait.reschedule(_now())

    def resume(self) -> None:
        """Let it be asked again."""
        self.stopped = False

    async def stream(self, call: GenerationRequest) -> AsyncGenerator[Delta | GenerationEnd]:
        """Generate: deltas, then exactly one `Ended`.

        Raises:
            EndpointFailed: one of its kinds.
        """
        ask = CompletionRequest(
            model=self.model,
            prompt=call.prompt_ids,
            max_tokens=call.sampling.max_tokens,
            temperature=call.sampling.temperature,
            top_p=call.sampling.top_p,
            seed=call.sampling.seed,
            stop=call.sampling.stop,
            stop_token_ids=call.end_ids,
            stream=True,
            stream_options=StreamOptions(include_usage=True),
            return_token_ids=True,
            cache_salt=call.cache_salt or None,
            priority=call.priority,
        )
        with self._span(call) as span:
            async with aclosing(self._generate(ask, call, _headers(span))) as parts:
                async for part in parts:
                    if isinstance(part, GenerationEnd):
                        _note_end(span, part)
                    yield part

    async def top_tokens(self, call: GenerationRequest, *, top: int) -> TopTokens:
        """Return the likeliest `top` next tokens.

        Raises:
            EndpointFailed: one of its kinds.
        """
        ask = CompletionRequest(
            model=self.model,
            prompt=call.prompt_ids,
            max_tokens=1,
            temperature=0.0,
            logprobs=top,
            return_tokens_as_token_ids=True,
            cache_salt=call.cache_salt or None,
            priority=call.priority,
        )
        limit = min(call.until, _now() + self.speeds.first_token(len(call.prompt_ids)))
        with self._span(call) as span:
            async with (
                self._translated("first token", limit),
                self._post("/v1/completions", ask, _headers(span)) as reply,
            ):
                await self._accept(reply)
                found = read_top_tokens(await reply.read())
            span.set_attribute("gen_ai.usage.input_tokens", found.usage.prompt_tokens)
            return found

    async def card(self) -> ModelCard:
        """Return what the endpoint says about its model (the first, where no name is set) and call it so from now on.

        Raises:
            EndpointFailed: one of its kinds.
        """
        url = self.url.joinpath("v1", "models")
        async with self._translated("first token", _now() + ASK_SECONDS), self._http.get(url) as reply:
            await self._accept(reply)
            cards = self._decode(await reply.read(), ModelList).data
        served = [card for card in cards if self._fixed_model in (None, card.id)]
        if not served:
            raise WrongModel(
                f"{self.name} serves {[card.id for card in cards]}, not {self._fixed_model}: set its model's name"
            )
        self.model = served[0].id
        return served[0]

    async def tokenize(self, asked: Mapping[str, object]) -> list[int]:
        """Return the ids that the endpoint's own tokenizer gives (vLLM's `/tokenize`).

        Raises:
            EndpointFailed: one of its kinds.
        """
        body = {"model": self.model, **asked}
        async with self._translated("first token", _now() + ASK_SECONDS), self._post("/tokenize", body, {}) as reply:
            await self._accept(reply)
            return list(self._decode(await reply.read(), TokenizeReply).tokens)

    async def metrics(self, *, within: float) -> str:
        """Return what the endpoint says of itself, in Prometheus' text format, within so many seconds.

        Raises:
            EndpointFailed: one of its kinds.
        """
        url = self.url.joinpath("metrics")
        async with self._translated("first token", _now() + within), self._http.get(url) as reply:
            await self._accept(reply)
            return (await reply.read()).decode("utf-8", "replace")

    async def _generate(
        self, ask: CompletionRequest, call: GenerationRequest, headers: Mapping[str, str]
    ) -> AsyncGenerator[Delta | GenerationEnd]:
        """Yield what the event stream says; the socket is closed when this is left, however it is left."""
        first = _now() + self.speeds.first_token(len(call.prompt_ids))
        async with self._translated(*_sooner("first token", first, call.until)):
            response = await self._post("/v1/completions", ask, headers)
        try:
            async with self._translated(*_sooner("first token", first, call.until)):
                await self._accept(response)
            async with aclosing(self._parts(response, call, first)) as parts:
                async for part in parts:
                    yield part
        finally:
            # Nothing to wait for: after a whole answer the connection went back to the pool by itself.
            response.close()

    async def _parts(
        self, response: aiohttp.ClientResponse, call: GenerationRequest, first: float
    ) -> AsyncGenerator[Delta | GenerationEnd]:
        reason, usage = None, None
        try:
            async with aclosing(self._frames(response, call, first)) as frames:
                async for frame in frames:
                    usage = frame.usage or usage
                    for choice in frame.choices:
                        reason = choice.finish_reason or reason
                        yield Delta(choice.text, choice.token_ids or ())
        except EndpointFailed:
            if reason is None:  # otherwise the answer is whole and only its usage is missing
                raise
        if reason not in ("stop", "length"):  # vLLM says "abort" when it shuts down
            raise ReplyBroken(f"{self.name}: the answer was aborted ({reason})")
        yield GenerationEnd("stop" if reason == "stop" else "length", usage)

    async def _frames(
        self, response: aiohttp.ClientResponse, call: GenerationRequest, first: float
    ) -> AsyncGenerator[CompletionChunk]:
        decoder = CompletionDecoder()
        phase: Phase = "first token"
        limit = first
        with self._named():
            while not decoder.done:
                try:
                    async with asyncio.timeout_at(min(limit, call.until)) as wait:
                        with self._stoppable(wait):
                            # `content.iter_any()` without a generator around it: whatever is there, as it comes.
                            data = await response.content.readany()
                except TimeoutError as exc:
                    raise self._late(_sooner(phase, limit, call.until)[0]) from exc
                frames = decoder.feed(data)
                for frame in frames:
                    yield frame
                if any(frame.choices for frame in frames):  # a keep-alive is no sign of progress
                    phase, limit = "between tokens", _now() + self.speeds.between
                elif not data:
                    raise ReplyBroken(f"{self.name}: the stream ended without its end mark")

    def _post(self, path: str, body: object, headers: Mapping[str, str]) -> "aiohttp.client._RequestContextManager":
        content = msgspec.json.encode(body)
        return self._http.post(
            self.url.joinpath(path.removeprefix("/")),
            data=content,
            allow_redirects=False,  # a prompt goes where the bank said and nowhere else
            headers={"Content-Type": "application/json", **headers},
        )

    async def _accept(self, response: aiohttp.ClientResponse) -> None:
        """Raise what a status other than 200 means."""
        status = response.status
        if status == 200:
            return
        said = await response.content.read(2048)
        response.close()
        if status == 429 or (status == 503 and _BUSY_ADVICE in said):
            raise QueueFull(f"{self.name}: its queue is full")
        if status in (400, 413, 422):
            raise RequestRejected(f"{self.name}: it refused the request ({status})")
        raise ReplyBroken(f"{self.name}: status {status}")

    def _decode(self, body: bytes, kind: type[_T]) -> _T:
        try:
            return msgspec.json.decode(body, type=kind)
        except msgspec.MsgspecError as exc:
            raise ReplyBroken(f"{self.name}: an answer that cannot be read") from exc

    @asynccontextmanager
    async def _translated(self, phase: Phase, limit: float) -> AsyncGenerator[None]:
        """Set a deadline (the loop's time) and name the driver's exceptions."""
        with self._named():
            try:
                async with asyncio.timeout_at(limit) as wait:
                    with self._stoppable(wait):
                        yield
            except aiohttp.ServerTimeoutError:
                raise
            except TimeoutError as exc:
                raise self._late(phase) from exc

    @contextmanager
    def _stoppable(self, wait: asyncio.Timeout) -> Iterator[None]:
        """Let `stop` end a wait.

        Raises:
            Stopped: it was called before.
        """
        if self.stopped:
            raise EndpointStopped(f"{self.name}: stopped")
        self._waits.add(wait)
        try:
            yield
        finally:
            self._waits.discard(wait)

    def _late(self, phase: Phase) -> EndpointFailed:
        """Return what it means that a wait ended before what it waited for."""
        return EndpointStopped(f"{self.name}: stopped") if self.stopped else DeadlineExceeded(phase, self.name)

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Turn the driver's exceptions into ours."""
        try:
            yield
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as exc:
            raise Unreachable(f"{self.name}: no connection") from exc
        except CompletionBroken as exc:
            raise ReplyBroken(f"{self.name}: {exc}") from exc
        except (aiohttp.ClientError, OSError) as exc:
            # Only its kind: a parser's message quotes what it could not parse, which may be somebody's answer.
            raise ReplyBroken(f"{self.name}: {type(exc).__name__}") from exc

    @contextmanager
    def _span(self, call: GenerationRequest) -> Iterator[Span]:
        """Open the client span; it is not made current, since a generator may be closed in another context."""
        attributes: dict[str, str | int | float] = {
            "gen_ai.operation.name": "text_completion",
            "gen_ai.provider.name": "vllm",
            "gen_ai.request.model": self.model,
            "gen_ai.request.max_tokens": call.sampling.max_tokens,
            "gen_ai.request.temperature": call.sampling.temperature,
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
async def open_session(*, api_key: str | None = None) -> AsyncGenerator[aiohttp.ClientSession]:
    """Open the session that all endpoints share: no limit on connections (admission has one), no total time."""
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_SECONDS),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
    ) as http:
        yield http


def _sooner(phase: Phase, limit: float, until: float) -> tuple[Phase, float]:
    return (phase, limit) if limit < until else ("whole answer", until)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _headers(span: Span) -> dict[str, str]:
    with trace.use_span(span, end_on_exit=False):
        return {"X-Request-Id": uuid4().hex, **trace_headers()}


def _note_end(span: Span, ended: GenerationEnd) -> None:
    span.set_attribute("gen_ai.response.finish_reasons", [ended.finish_reason])
    if ended.usage is not None:
        span.set_attribute("gen_ai.usage.input_tokens", ended.usage.prompt_tokens)
        span.set_attribute("gen_ai.usage.output_tokens", ended.usage.completion_tokens)
        span.set_attribute("gen_ai.usage.cache_read.input_tokens", ended.usage.cached_tokens)
