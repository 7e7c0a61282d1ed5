"""One endpoint: its frames, deadlines and failures, and that nothing of the driver gets through."""

import json
import math
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from itertools import pairwise
from time import perf_counter

import aiohttp
import anyio
import pytest
from aiohttp import web
from aiohttp.connector import Connection
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from chatbot.chat import Chat, Message
from chatbot.models.endpoint import (
    Capabilities,
    Endpoint,
    GenerationRequest,
    Piece,
    Sampling,
    StreamDecoder,
    read_top_tokens,
)
from knowledge.model_connection import (
    AccessDenied,
    DeadlineExceeded,
    EndpointFailed,
    QueueFull,
    ReplyBroken,
    RequestRejected,
    WrongModel,
    open_session,
    refusal_names,
)
from knowledge.profiles import Deadlines
from llm_server.scripted import Behaviour, scripted_server
from tests.chatbot.models.scripted_pool import PATIENT, QUICK
from tests.patience import patient

pytestmark = pytest.mark.anyio

STREAM = (
    b'data: {"id":"chatcmpl-1","choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null}],'
    b'"prompt_token_ids":[1,2]}\n\n'
    b": keep-alive\n\n"
    b"event: ignored\r\n"
    b'data: {"choices":[{"index":0,"delta":{"reasoning":"\xec\x9d\x8c"},"token_ids":[5]}]}\n\n'
    b'data: {"choices":[{"index":0,"delta":{"content":"\xec\x98\x88"},"token_ids":[7,8]}]}\n\n'
    b'data:{"choices":[{"delta":{"content":" \\ud55c"},"token_ids":[9],"finish_reason":"stop"}]}\r\n\r\n'
    b'data: {"choices":[],"usage":{"prompt_tokens":2,"completion_tokens":3,"total_tokens":5,'
    b'"prompt_tokens_details":{"cached_tokens":1}}}\n\n'
    b"data: [DONE]\n\n"
)
PIECES = [Piece("", (5,), "음"), Piece("예", (7, 8)), Piece(" 한", (9,))]


def decode(pieces: Sequence[bytes]) -> tuple[list[Piece], StreamDecoder]:
    decoder = StreamDecoder()
    return [piece for data in pieces for piece in decoder.feed(data)], decoder


@given(st.lists(st.integers(0, len(STREAM))))
def test_frames_are_the_same_wherever_the_network_cuts(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(STREAM)]
    pieces, decoder = decode([STREAM[a:b] for a, b in pairwise(places)])
    assert decoder.done
    assert pieces == PIECES
    assert decoder.prompt_ids == (1, 2)
    assert decoder.finish_reason == "stop"
    assert decoder.usage is not None
    assert decoder.usage.cached_tokens == 1


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"data: {broken\n\n", "not valid JSON"),
        (b"data: 7\n\n", "not valid JSON"),
        (b'data: {"choices": [{"text": 7}]}\n\n', "not valid JSON"),
        (b'data: {"choices": [{"index": 1, "delta": {"content": "a"}}]}\n\n', "more than one choice"),
        (b'data: {"error": {"message": "secret", "code": 500}}\n\n', "reported an error"),
        (b"data: " + b"x" * (5 * 2**20), "exceeds"),
    ],
)
def test_a_chunk_that_is_not_a_completion_is_refused(data: bytes, sentence: str) -> None:
    with pytest.raises(ReplyBroken, match=sentence) as refused:
        decode([data])
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("body", [b"", b"{}", b'{"choices": []}', b"<html>"])
def test_a_probe_reply_without_a_choice_is_refused(body: bytes) -> None:
    with pytest.raises(ReplyBroken):
        read_top_tokens(body)


@pytest.mark.parametrize(
    ("body", "names"),
    [
        (b'{"error":{"message":"secret","type":"invalid_request_error","param":"max_tokens"}}', "max_tokens"),
        (b'{"error":{"code":"secret words of a customer","param":7}}', ""),
        (b'{"error":"secret"}', ""),
        (b'["secret"]', ""),
        (b"\xff", ""),
    ],
)
def test_a_refusal_is_reported_by_its_codes_alone(body: bytes, names: str) -> None:
    reported = refusal_names(body)
    assert names in reported
    assert bool(reported) == bool(names)
    assert "secret" not in reported


@pytest.mark.parametrize(
    ("logprobs", "texts", "certain"),
    [
        ({"content": [{"top_logprobs": [{"token": "예", "logprob": -0.1, "bytes": [236, 152, 136]}]}]}, ["예"], False),
        ({"content": [{"top_logprobs": [{"token": "No", "logprob": -0.1}]}]}, ["No"], False),
        (None, ["Yes"], True),
        ({"tokens": ["Yes"]}, ["Yes"], True),
    ],
    ids=["vLLM", "without bytes", "none", "another shape"],
)
def test_a_probe_takes_its_word_where_it_has_no_log_probabilities(
    logprobs: object, texts: list[str], *, certain: bool
) -> None:
    body = json.dumps({"choices": [{"message": {"content": "Yes"}, "logprobs": logprobs}]}).encode()
    top = read_top_tokens(body)
    assert ([text.decode() for text, _ in top.logprobs], top.certain) == (texts, certain)


def call(*, until: float = math.inf) -> GenerationRequest:
    chat = Chat(messages=(Message("user", "?"),), tokens=3)
    return GenerationRequest(chat=chat, sampling=Sampling(max_tokens=50), cache_salt="t", until=until)


async def listen(endpoint: Endpoint, request: GenerationRequest | None = None) -> list[Piece]:
    async with aclosing(endpoint.stream(request or call())) as parts:
        return [part async for part in parts]


Handler = Callable[[web.Request], AsyncGenerator[bytes]]


@asynccontextmanager
async def replying(handler: Handler, *, status: int = 200, deadlines: Deadlines = PATIENT) -> AsyncGenerator[Endpoint]:
    """Serve one reply, byte for byte, and give an endpoint that asks for it."""

    async def reply(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=status)
        await response.prepare(request)
        async with aclosing(handler(request)) as pieces:
            async for piece in pieces:
                await response.write(piece)
        return response

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", reply)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with open_session() as http:
            endpoint = Endpoint(http, f"http://127.0.0.1:{runner.addresses[0][1]}", deadlines)
            endpoint.capabilities = Capabilities(token_ids=True, tokenize=True)
            yield endpoint
    finally:
        await runner.cleanup()


def saying(*pieces: bytes, pause: float = 0, then_cut: bool = False, then_wait: bool = False) -> Handler:
    async def handler(request: web.Request) -> AsyncGenerator[bytes]:
        for piece in pieces:
            yield piece
            await anyio.sleep(pause)
        if then_wait:
            await anyio.sleep(30)
        if then_cut and request.transport is not None:
            await anyio.sleep(0.05)  # what was written is on its way
            request.transport.abort()

    return handler


TOKEN = b'data: {"choices":[{"delta":{"content":"a"},"token_ids":[1]}]}\n\n'
LAST = b'data: {"choices":[{"delta":{"content":""},"token_ids":[2],"finish_reason":"stop"}]}\n\n'


@pytest.mark.parametrize(
    "usage",
    [
        b'data: {"choices":[],"usage":{"prompt_tokens":-5}}\n\n',
        b'data: {"choices":null,"usage":{"prompt_tokens":null}}\n\n',
        b'data: {"error":{"message":"no usage"}}\n\n',
        b"data: {\n\n",
    ],
)
async def test_no_text_is_lost_before_an_invalid_usage_in_its_packet(usage: bytes) -> None:
    async with replying(saying(TOKEN + LAST + usage)) as endpoint:
        assert await listen(endpoint) == [Piece("a", (1,)), Piece("", (2,))]


@pytest.mark.parametrize("end", [{"then_cut": True}, {"then_wait": True}])
async def test_an_answer_that_is_whole_waits_a_second_for_its_usage(end: dict[str, bool]) -> None:
    async with replying(saying(TOKEN, LAST, **end)) as endpoint:
        begun = perf_counter()
        assert await listen(endpoint) == [Piece("a", (1,)), Piece("", (2,))]
        assert perf_counter() - begun < patient(2)


@pytest.mark.parametrize(
    "handler",
    [
        saying(TOKEN),
        saying(TOKEN, then_cut=True),
        saying(TOKEN, b"data: [DONE]\n\n"),
        # vLLM's shutdown ends running answers like this.
        saying(TOKEN, LAST.replace(b"stop", b"abort"), b"data: [DONE]\n\n"),
        saying(TOKEN.replace(b"[1]", b"[-1]"), LAST),
        saying(TOKEN.replace(b'"a"', b'"\xff"'), LAST),
        saying(b""),
    ],
)
async def test_an_answer_that_breaks_off_is_broken(handler: Handler) -> None:
    async with replying(handler) as endpoint:
        with pytest.raises(ReplyBroken):
            await listen(endpoint)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (503, b"The engine is currently busy. Please try again later or on a different instance.", QueueFull),
        (503, b"<html>no server is available</html>", ReplyBroken),
        (503, b'{"error":"server busy, please try again.  maximum pending requests exceeded"}', QueueFull),
        (503, b'{"error":{"message":"The engine is currently overloaded, please try again later"}}', QueueFull),
        (503, b'{"error":{"code":503,"message":"Loading model","type":"unavailable_error"}}', ReplyBroken),
        (529, b"", QueueFull),
        (429, b'{"error":{"message":"You exceeded your quota","code":"insufficient_quota"}}', AccessDenied),
        (400, b'{"error":{"code":"content_filter","innererror":{}}}', RequestRejected),
        (401, b"", AccessDenied),
        (403, b'{"error":{"message":"no such key","code":"invalid_api_key"}}', AccessDenied),
        (403, b"<html>Request blocked</html>", RequestRejected),
        (403, b'{"error":{"message":"You are not allowed","type":"invalid_request_error"}}', RequestRejected),
        (400, b"maximum context length", RequestRejected),
        (422, b"", RequestRejected),
        (404, b"the model does not exist", WrongModel),
        (500, b"", ReplyBroken),
    ],
)
async def test_every_status_has_a_meaning(status: int, body: bytes, kind: type[EndpointFailed]) -> None:
    async with replying(saying(body), status=status) as endpoint:
        with pytest.raises(kind):
            await listen(endpoint)
        with pytest.raises(kind):
            await endpoint.top_tokens(call())


async def test_a_refusal_with_an_unfinished_body_is_a_refusal() -> None:
    async with replying(saying(b'{"error":', then_wait=True), status=500) as endpoint:
        with pytest.raises(ReplyBroken, match="status 500"):
            await listen(endpoint)


async def test_a_page_that_refuses_the_first_call_refuses_the_key() -> None:
    async with replying(saying(b"<html>Forbidden</html>"), status=403) as endpoint:
        with pytest.raises(AccessDenied):
            await endpoint.read_model()


@pytest.mark.parametrize(
    ("handler", "phase", "until"),
    [
        (saying(then_wait=True), "first token", math.inf),
        (saying(b": keep-alive\n\n", then_wait=True), "first token", math.inf),
        (saying(TOKEN, then_wait=True), "between tokens", math.inf),
        (saying(TOKEN, *[b": keep-alive\n\n"] * 100, pause=0.05), "between tokens", math.inf),
        (saying(TOKEN, then_wait=True), "whole answer", 0.1),
    ],
)
async def test_every_deadline_is_kept(handler: Handler, phase: str, until: float) -> None:
    async with replying(handler, deadlines=QUICK) as endpoint:
        begun = perf_counter()
        with pytest.raises(DeadlineExceeded) as late:
            await listen(endpoint, call(until=anyio.current_time() + until))
        assert perf_counter() - begun < patient(1.5)
    assert late.value.phase == phase


async def test_a_reply_without_an_end_is_left_before_it_fills_the_memory() -> None:
    async def endless(_: web.Request) -> AsyncGenerator[bytes]:
        while True:
            yield b" " * 2**20

    async with replying(endless) as endpoint:
        for asking in (endpoint.read_model(), endpoint.top_tokens(call())):
            with pytest.raises(ReplyBroken, match="exceeds 64 MiB"):
                await asking


def every_kind_of(error: type[Exception]) -> list[type[Exception]]:
    return [error, *(kind for below in error.__subclasses__() for kind in every_kind_of(below))]


class FailingConnector(aiohttp.BaseConnector):
    """Raises an error where a connection is asked for."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    async def connect(self, *_: object, **__: object) -> Connection:
        raise self._error


@pytest.mark.parametrize("error", [*every_kind_of(aiohttp.ClientError), TimeoutError, OSError, ConnectionResetError])
async def test_no_exception_of_the_driver_gets_through(error: type[Exception]) -> None:
    raised = error.__new__(error)  # their constructors differ; only the class decides
    async with aiohttp.ClientSession(connector=FailingConnector(raised)) as http:
        endpoint = Endpoint(http, "http://127.0.0.1:1", PATIENT)
        for asking in (endpoint.read_model(), endpoint.top_tokens(call()), listen(endpoint)):
            with pytest.raises(EndpointFailed):
                await asking


async def test_connections_are_used_again_after_a_whole_answer() -> None:
    connections: list[object] = []

    async def whole_answer(request: web.Request) -> AsyncGenerator[bytes]:
        assert request.transport is not None
        connections.append(request.transport.get_extra_info("peername"))
        yield STREAM

    async with replying(whole_answer) as endpoint:
        for _ in range(5):
            await listen(endpoint)
    assert len(connections) == 5
    assert len(set(connections)) == 1


async def test_the_span_has_usage_and_no_content() -> None:
    spans, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    async with scripted_server(Behaviour(answer="비밀 0123")) as server, open_session() as http:
        endpoint = Endpoint(http, server.url, PATIENT, model="scripted")
        endpoint.tracer = provider.get_tracer("test")
        await listen(endpoint)
        server.tell(fail_status=500)
        with pytest.raises(ReplyBroken):
            await listen(endpoint)
        sent = server.stats().requests[0].traceparent
    span, failed = spans.get_finished_spans()
    assert span.context is not None
    assert sent is not None
    assert sent.startswith(f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-")
    attributes = dict(span.attributes or {})
    assert span.name == "model.generate"
    assert attributes["gen_ai.usage.input_tokens"] == 15
    assert attributes["gen_ai.response.finish_reasons"] == ("stop",)
    assert "비밀" not in str(attributes)
    assert dict(failed.attributes or {})["error.type"] == "broken"
