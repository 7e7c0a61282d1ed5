"""An HTTP server with vLLM's API and scripted behaviour: slow, stalled, failing, dying after k tokens.

`python -m llm_server.scripted --port P [--script FILE]`, or in tests `async with scripted_server(behaviour) as server`.
`POST /script` changes single fields of its `Behaviour` at run time, `DELETE /script` restores it; `GET /stats` returns
its running, waiting and past generations. The other routes are vLLM's: /v1/completions, /v1/chat/completions,
/v1/models, /tokenize, /health, /metrics.
"""

import asyncio
import signal
import ssl
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from itertools import takewhile
from pathlib import Path
from typing import Annotated

import anyio
import msgspec
import typer
from aiohttp import web

from llm_server.scripted.answers import read_prompt
from llm_server.scripted.reply import GenerationRequest, ReplyEncoder, read_generation_request
from llm_server.scripted.speech import Behaviour, GeneratedToken, decode, encode, generate, render, tokenizer
from llm_server.scripted.wire import (
    DetokenizeReply,
    DetokenizeRequest,
    ErrorInfo,
    ErrorReply,
    TokenizeReply,
    TokenizeRequest,
)

GREETING = "hello"
"""The message with which the product probes a server's capabilities at startup."""
PLAIN_FIELDS = {
    *("model", "messages", "temperature", "top_p", "seed", "stop", "stream", "stream_options", "max_tokens"),
    *("max_completion_tokens", "logprobs", "top_logprobs", "reasoning_effort"),
}
"""The standard OpenAI fields of a chat completion that clients send here."""


class SeenGeneration(msgspec.Struct, kw_only=True):
    """A received generation request.

    `ended` is running, stop, length, failed (an error status), left (by the client) or cut (by a fault).
    """

    path: str
    prompt_tokens: int
    cache_salt: str | None
    priority: int
    traceparent: str | None
    top_logprobs: int | None
    answer_tokens: int = 0
    ended: str = "running"


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers of running, waiting and started generations, and the last hundred requests, oldest first."""

    running: int
    waiting: int
    started: int
    requests: list[SeenGeneration]


class ScriptedModel:
    """The server's state: its behaviour, its slots and its generations."""

    def __init__(self, behaviour: Behaviour, *, name: str = "scripted", api_key: str | None = None) -> None:
        self.name = name
        self._api_key = api_key
        self.url = ""
        self.behaviour = behaviour
        self._initial = behaviour
        self._behaviour_changed = anyio.Event()
        self._slots = anyio.CapacityLimiter(behaviour.slots)
        self._generations: deque[SeenGeneration] = deque(maxlen=100)
        self._started = 0
        self._tokens_generated = 0
        self._waiting = 0
        self._stats_changed = anyio.Event()
        self._transports: set[asyncio.Transport] = set()
        self._prompts: deque[tuple[str | None, Sequence[int]]] = deque(maxlen=64)

    def tell(self, **changes: object) -> Behaviour:
        """Change fields of the behaviour; stalled and hung requests continue, and running ones adopt its pace."""
        fields = {**msgspec.structs.asdict(self.behaviour), **changes}
        return self._set_behaviour(msgspec.convert(fields, Behaviour))

    def reset(self) -> Behaviour:
        """Restore the initial behaviour."""
        return self._set_behaviour(self._initial)

    def stats(self) -> Stats:
        """Return the current statistics."""
        return Stats(
            running=self._slots.borrowed_tokens,
            waiting=self._waiting,
            started=self._started,
            requests=list(self._generations),
        )

    async def until(self, condition: Callable[[Stats], bool]) -> Stats:
        """Wait for statistics that meet `condition`, checked whenever a generation starts, waits or ends."""
        while not condition(stats := self.stats()):
            await self._stats_changed.wait()
        return stats

    def app(self) -> web.Application:
        """Return the application with the server's routes."""
        app = web.Application(middlewares=[self._availability], client_max_size=16 * 2**20)
        app.add_routes(
            [
                web.post("/script", self._post_script),
                web.delete("/script", self._delete_script),
                web.get("/stats", self._get_stats),
                web.get("/prompts", self._get_prompts),
                web.get("/health", self._health),
                web.get("/metrics", self._metrics),
                web.get("/v1/models", self._models),
                web.post("/tokenize", self._tokenize),
                web.post("/detokenize", self._detokenize),
                web.post("/v1/completions", self._generate),
                web.post("/v1/chat/completions", self._generate),
            ]
        )
        return app

    def _set_behaviour(self, behaviour: Behaviour) -> Behaviour:
        """Replace the behaviour, and wake the requests that wait for a change."""
        self.behaviour = behaviour
        self._slots.total_tokens = behaviour.slots
        self._behaviour_changed.set()
        self._behaviour_changed = anyio.Event()
        if behaviour.dead:
            for transport in self._transports:
                transport.abort()
        return behaviour

    @web.middleware
    async def _availability(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Apply the scripted faults that concern every route of vLLM: a wrong key, hung, dead, plain."""
        if request.path in {"/script", "/stats", "/prompts"}:
            return await handler(request)
        if self._api_key is not None and request.headers.get("Authorization") != f"Bearer {self._api_key}":
            return _error(401, "Unauthorized")
        while self.behaviour.hung:
            await self._behaviour_changed.wait()
        if self.behaviour.dead:
            _cut(request)
            return web.Response()
        refusal = _refusal_of_plain(request.path, await request.read()) if self.behaviour.plain else None
        return refusal or await handler(request)

    async def _post_script(self, request: web.Request) -> web.Response:
        try:
            return _json(self.tell(**msgspec.json.decode(await request.read(), type=dict[str, object])))
        except msgspec.MsgspecError as exc:
            return _error(400, str(exc))

    async def _delete_script(self, _: web.Request) -> web.Response:
        return _json(self.reset())

    async def _get_stats(self, _: web.Request) -> web.Response:
        return _json(self.stats())

    async def _get_prompts(self, _: web.Request) -> web.Response:
        """Return the last prompts as text, oldest first."""
        return web.json_response([decode(ids) for _, ids in self._prompts])

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response()

    async def _models(self, _: web.Request) -> web.Response:
        length = self.behaviour.max_model_len
        return web.json_response(
            {
                "object": "list",
                "data": [{"id": self.name, "object": "model", "owned_by": "vllm", "max_model_len": length}],
            }
        )

    async def _metrics(self, _: web.Request) -> web.Response:
        labels = f'{{engine="0",model_name="{self.name}"}}'
        stats = self.stats()
        values = (
            ("num_requests_running", "gauge", stats.running),
            ("num_requests_waiting", "gauge", stats.waiting),
            ("generation_tokens_total", "counter", self._tokens_generated),
            ("kv_cache_usage_perc", "gauge", 0.0),
        )
        return web.Response(
            text="".join(f"# TYPE vllm:{n} {kind}\nvllm:{n}{labels} {value}\n" for n, kind, value in values)
        )

    async def _tokenize(self, request: web.Request) -> web.Response:
        try:
            body = msgspec.json.decode(await request.read(), type=TokenizeRequest)
        except msgspec.MsgspecError as exc:
            return _error(400, str(exc))
        text = body.prompt or ""
        if body.messages is not None:
            text = render(
                body.messages,
                add_generation_prompt=body.add_generation_prompt,
                continue_final_message=body.continue_final_message,
                template=self.behaviour.template,
                thinks=body.chat_template_kwargs.get("enable_thinking") is not False,
            )
        ids = encode(text, marked=self.behaviour.marked)
        strings = [tokenizer().id_to_token(token) or "" for token in ids] if body.return_token_strs else None
        return _json(TokenizeReply(len(ids), self.behaviour.max_model_len, ids, strings))

    async def _detokenize(self, request: web.Request) -> web.Response:
        try:
            body = msgspec.json.decode(await request.read(), type=DetokenizeRequest)
        except msgspec.MsgspecError as exc:
            return _error(400, str(exc))
        return _json(DetokenizeReply(decode(body.tokens)))

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        """Record the request, and answer it in a slot, unless it is invalid, scripted to fail, or the queue is full."""
        behaviour = self.behaviour
        try:
            generation_request = read_generation_request(request.path, await request.read(), behaviour)
        except (msgspec.MsgspecError, ValueError) as exc:
            return _error(400, str(exc))
        if read_prompt(decode(generation_request.prompt_ids)).question == GREETING:
            return await self._greet(request, generation_request, behaviour)
        self.behaviour = self.behaviour.after_generation()
        generation = SeenGeneration(
            path=request.path,
            prompt_tokens=len(generation_request.prompt_ids),
            cache_salt=generation_request.cache_salt,
            priority=generation_request.priority,
            traceparent=request.headers.get("traceparent"),
            top_logprobs=generation_request.top_logprobs,
        )
        self._generations.append(generation)
        self._started += 1
        has_no_slot = self._slots.available_tokens < 1
        is_queue_full = behaviour.queue is not None and has_no_slot and self._waiting >= behaviour.queue
        if is_queue_full or behaviour.fail_status is not None:
            generation.ended = "failed"
            detail = f"scripted failure of: {decode(generation_request.prompt_ids)}"  # as servers quote rejected input
            return _error(behaviour.fail_status or 503, detail, retry_after=behaviour.retry_after)
        async with self._slot(request, generation):
            return await self._answer(request, generation_request, behaviour, generation)

    async def _greet(
        self, request: web.Request, generation_request: GenerationRequest, behaviour: Behaviour
    ) -> web.StreamResponse:
        """Answer a capability probe (`GREETING`) at once, without faults, and without counting it."""
        behaviour = msgspec.structs.replace(behaviour.without_faults(), first_token_seconds=0.0, token_seconds=0.0)
        unseen = SeenGeneration(
            path=request.path, prompt_tokens=0, cache_salt=None, priority=0, traceparent=None, top_logprobs=None
        )
        return await self._answer(request, generation_request, behaviour, unseen)

    @asynccontextmanager
    async def _slot(self, request: web.Request, generation: SeenGeneration) -> AsyncGenerator[None]:
        """Acquire a slot for the block; a generation that still runs when the block ends has lost its client (`left`).

        As in vLLM, which counts waiting requests after scheduling, no request counts as waiting while a slot is free.
        """
        transport = request.transport
        try:
            self._slots.acquire_nowait()
        except anyio.WouldBlock:
            self._waiting += 1
            self._notify()
            try:
                await self._slots.acquire()
            finally:
                self._waiting -= 1
        self._notify()
        if transport is not None:
            self._transports.add(transport)
        try:
            yield
        finally:
            self._slots.release()
            if transport is not None:
                self._transports.discard(transport)
            if generation.ended == "running":
                generation.ended = "left"
            self._notify()

    def _notify(self) -> None:
        self._stats_changed.set()
        self._stats_changed = anyio.Event()

    async def _answer(
        self, http_request: web.Request, request: GenerationRequest, behaviour: Behaviour, generation: SeenGeneration
    ) -> web.StreamResponse:
        """Send the tokens, streamed or as one body; record their number and the end in `generation`."""
        cached_tokens = self._cached_tokens(request)
        encoder = ReplyEncoder(request, model=self.name, cached_tokens=cached_tokens, now=int(time.time()))
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        if request.stream:
            await response.prepare(http_request)
            await response.write(encoder.opening())
        async with aclosing(self._tokens(http_request, request, behaviour)) as tokens:
            async for token in tokens:
                generation.answer_tokens += 1
                self._tokens_generated += 1
                chunk = encoder.feed(token)
                if request.stream:
                    # Invalid JSON that quotes the prompt, as from a broken proxy.
                    garbled = behaviour.garble_after == generation.answer_tokens - 1
                    await response.write(_invalid_json(request) if garbled else chunk)
                generation.ended = token.finish_reason or generation.ended
        if generation.ended == "running":
            generation.ended = "cut"
            return response
        if not request.stream:
            return web.Response(body=encoder.body(), content_type="application/json")
        await response.write(encoder.closing())
        await response.write_eof()
        return response

    async def _tokens(
        self, http_request: web.Request, request: GenerationRequest, behaviour: Behaviour
    ) -> AsyncGenerator[GeneratedToken]:
        """Yield the answer at the scripted pace, with the scripted faults."""
        pause = behaviour.first_token_seconds
        answer = generate(
            request.prompt_ids,
            behaviour,
            max_tokens=request.max_tokens,
            stop=request.stop,
            probing=request.top_logprobs is not None,
        )
        for n, token in enumerate(list(answer)):
            if n == behaviour.stall_after:
                await self._behaviour_changed.wait()
            if n == behaviour.die_after:
                self._set_behaviour(msgspec.structs.replace(behaviour.without_faults(), dead=True))
            if n in {behaviour.drop_after, behaviour.die_after}:
                _cut(http_request)
                return
            await asyncio.sleep(pause)
            pause = self.behaviour.token_seconds if behaviour.token_seconds else 0.0
            yield token

    def _cached_tokens(self, request: GenerationRequest) -> int:
        """Return the number of prompt tokens in a prefix cache with vLLM's blocks of 16, and add the prompt to it."""
        prompt_ids = request.prompt_ids
        lengths = [_common_prefix(ids, prompt_ids) for salt, ids in self._prompts if salt == request.cache_salt]
        self._prompts.append((request.cache_salt, prompt_ids))
        longest = max(lengths, default=0)
        return min(longest, len(prompt_ids) - 1) // 16 * 16


def _common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """Return the number of equal items at the beginning of both."""
    pairs = zip(left, right, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _invalid_json(request: GenerationRequest) -> bytes:
    return b"data: {broken " + msgspec.json.encode(decode(request.prompt_ids)) + b"\n\n"


def _cut(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


def _json(value: msgspec.Struct, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json", status=status)


def _error(status: int, message: str, *, retry_after: int | None = None) -> web.Response:
    response = _json(ErrorReply(ErrorInfo(message=message, type="ScriptedError", code=status)), status)
    if retry_after is not None:
        response.headers["Retry-After"] = str(retry_after)
    return response


def _refusal_of_plain(path: str, body: bytes) -> web.Response | None:
    """Return the error of a server without vLLM's routes and fields; None if the request needs none of them."""
    if path == "/v1/models":
        return None
    if path != "/v1/chat/completions":
        return _error(404, f"Invalid URL (POST {path})")
    unknown = sorted(msgspec.json.decode(body, type=dict[str, object]).keys() - PLAIN_FIELDS)
    return _error(400, f"Unrecognized request argument supplied: {unknown[0]}") if unknown else None


@asynccontextmanager
async def scripted_server(
    behaviour: Behaviour | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    name: str = "scripted",
    api_key: str | None = None,
    tls: ssl.SSLContext | None = None,
) -> AsyncGenerator[ScriptedModel]:
    """Serve a scripted model while the block runs; port 0 selects a free port."""
    model = ScriptedModel(behaviour or Behaviour(), name=name, api_key=api_key)
    # handler_cancellation: a client that disconnects frees its slot at once, as with vLLM.
    runner = web.AppRunner(model.app(), handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, reuse_address=True, ssl_context=tls)
        await site.start()
        model.url = f"{'https' if tls else 'http'}://{host}:{runner.addresses[0][1]}"
        yield model
    finally:
        await runner.cleanup()


def main(
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1; 0 takes a free one.")] = 0,
    script: Annotated[Path | None, typer.Option(help="JSON file with the fields of a Behaviour.")] = None,
    name: Annotated[str, typer.Option(help="The served model's name.")] = "scripted",
    ssl_certfile: Annotated[Path | None, typer.Option(help="The certificate to serve with.")] = None,
    ssl_keyfile: Annotated[Path | None, typer.Option(help="Its key.")] = None,
) -> None:
    """Serve a scripted model with vLLM's API until Ctrl-C."""
    behaviour = msgspec.json.decode(script.read_bytes(), type=Behaviour) if script else Behaviour()
    tls = None
    if ssl_certfile is not None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(ssl_certfile, ssl_keyfile)

    async def serve() -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async with scripted_server(behaviour, port=port, name=name, tls=tls) as server:
                typer.echo(f"ready {server.url}")
                async for _ in signals:
                    return

    anyio.run(serve)
