"""A real HTTP server that speaks vLLM's API and does as it is told: slow, stalled, failing, dying after k tokens.

`python -m llm_server.scripted --port P [--script FILE]`, or in tests `async with scripted_server(behaviour) as server`.
`POST /script` changes single fields of its `Behaviour` at run time, `DELETE /script` sets it back; `GET /stats` tells
what runs, waits and was seen. The rest is vLLM's: /v1/completions, /v1/chat/completions, /v1/models, /tokenize,
/health, /metrics.
"""

import asyncio
import signal
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Annotated

import anyio
import msgspec
import typer
from aiohttp import web

from llm_server.scripted.byte_tokenizer import write_tokenizer
from llm_server.scripted.reply import Frames, Generation, read_generation
from llm_server.scripted.speech import Behaviour, Step, decode, encode, render, speak, tokenizer
from llm_server.scripted.wire import ErrorInfo, ErrorReply, TokenizeAsking, Tokens

__all__ = ["Behaviour", "ScriptedModel", "Seen", "Stats", "scripted_server", "write_tokenizer"]


class Seen(msgspec.Struct, kw_only=True):
    """One generation as the server saw it; `ended` is running, stop, length, left, cut or failed."""

    path: str
    prompt_tokens: int
    cache_salt: str | None
    priority: int
    traceparent: str | None
    top_logprobs: int | None
    answer_tokens: int = 0
    ended: str = "running"


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """What runs and waits now, and the last hundred generations, oldest first."""

    running: int
    waiting: int
    started: int
    requests: list[Seen]


class ScriptedModel:
    """The server's state: its behaviour, its slots and what it has seen."""

    def __init__(self, behaviour: Behaviour, *, name: str = "scripted") -> None:
        self.name = name
        self.url = ""
        self.behaviour = behaviour
        self._first = behaviour
        self._told = anyio.Event()
        self._slots = anyio.CapacityLimiter(behaviour.slots)
        self._seen: deque[Seen] = deque(maxlen=100)
        self._started = 0
        self._waiting = 0
        self._moved = anyio.Event()
        self._open: set[asyncio.Transport] = set()
        self._cache: deque[tuple[str | None, Sequence[int]]] = deque(maxlen=64)

    def tell(self, **changes: object) -> Behaviour:
        """Change fields of the behaviour; whoever stalls or hangs goes on with it."""
        known = {**msgspec.structs.asdict(self.behaviour), **changes}
        return self._become(msgspec.convert(known, Behaviour))

    def reset(self) -> Behaviour:
        """Return to the behaviour it was started with."""
        return self._become(self._first)

    def stats(self) -> Stats:
        """Return what runs, waits and was seen."""
        return Stats(
            running=self._slots.borrowed_tokens,
            waiting=self._waiting,
            started=self._started,
            requests=list(self._seen),
        )

    async def until(self, condition: Callable[[Stats], bool]) -> Stats:
        """Return the first statistics that meet `condition`, looking whenever a generation starts, waits or ends."""
        while not condition(stats := self.stats()):
            await self._moved.wait()
        return stats

    def app(self) -> web.Application:
        """Return the server's routes."""
        app = web.Application(middlewares=[self._alive], client_max_size=16 * 2**20)
        app.add_routes(
            [
                web.get("/script", self._show),
                web.post("/script", self._change),
                web.delete("/script", self._restore),
                web.get("/stats", self._count),
                web.get("/prompts", self._prompts),
                web.get("/health", self._health),
                web.get("/metrics", self._metrics),
                web.get("/v1/models", self._models),
                web.post("/tokenize", self._tokenize),
                web.post("/v1/completions", self._generate),
                web.post("/v1/chat/completions", self._generate),
            ]
        )
        return app

    def _become(self, behaviour: Behaviour) -> Behaviour:
        self.behaviour = behaviour
        self._slots.total_tokens = behaviour.slots
        self._told.set()
        self._told = anyio.Event()
        if behaviour.dead:
            for transport in self._open:
                transport.abort()
        return behaviour

    @web.middleware
    async def _alive(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if request.path in {"/script", "/stats", "/prompts"}:
            return await handler(request)
        while self.behaviour.hung:
            await self._told.wait()
        if self.behaviour.dead:
            _cut(request)
            return web.Response()
        return await handler(request)

    async def _show(self, _: web.Request) -> web.Response:
        return _json(self.behaviour)

    async def _change(self, request: web.Request) -> web.Response:
        try:
            return _json(self.tell(**msgspec.json.decode(await request.read(), type=dict[str, object])))
        except msgspec.MsgspecError as exc:
            return _error(400, str(exc))

    async def _restore(self, _: web.Request) -> web.Response:
        return _json(self.reset())

    async def _count(self, _: web.Request) -> web.Response:
        return _json(self.stats())

    async def _prompts(self, _: web.Request) -> web.Response:
        """Return the last prompts as text, oldest first: what the model was told, word for word."""
        return web.json_response([decode(ids) for _, ids in self._cache])

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
        return web.Response(
            text=f"# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running{labels} {stats.running}\n"
            f"# TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting{labels} {stats.waiting}\n"
            f"# TYPE vllm:kv_cache_usage_perc gauge\nvllm:kv_cache_usage_perc{labels} {self.behaviour.cache_used}\n"
        )

    async def _tokenize(self, request: web.Request) -> web.Response:
        try:
            asked = msgspec.json.decode(await request.read(), type=TokenizeAsking)
        except msgspec.MsgspecError as exc:
            return _error(400, str(exc))
        text = asked.prompt or ""
        if asked.messages is not None:
            text = render(
                asked.messages,
                add_generation_prompt=asked.add_generation_prompt,
                continue_final_message=asked.continue_final_message,
            )
        ids = encode(text)
        strings = [tokenizer().id_to_token(token) or "" for token in ids] if asked.return_token_strs else None
        return _json(Tokens(len(ids), self.behaviour.max_model_len, ids, strings))

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        behaviour, self.behaviour = self.behaviour, self.behaviour.claimed()
        try:
            asked = read_generation(request.path, await request.read(), behaviour.max_model_len)
        except (msgspec.MsgspecError, ValueError) as exc:
            return _error(400, str(exc))
        seen = Seen(
            path=request.path,
            prompt_tokens=len(asked.prompt_ids),
            cache_salt=asked.cache_salt,
            priority=asked.priority,
            traceparent=request.headers.get("traceparent"),
            top_logprobs=asked.top_logprobs,
        )
        self._seen.append(seen)
        self._started += 1
        busy = self._slots.available_tokens < 1
        full = behaviour.queue is not None and busy and self._waiting >= behaviour.queue
        if full or behaviour.fail_status is not None:
            seen.ended = "failed"
            return _error(behaviour.fail_status or 503, "scripted failure", retry_after=behaviour.retry_after)
        async with self._slot(request, seen):
            return await self._answer(request, asked, behaviour, seen)

    @asynccontextmanager
    async def _slot(self, request: web.Request, seen: Seen) -> AsyncGenerator[None]:
        """Wait for a slot and hold it; a generation that ends without a reason was left by its client."""
        transport = request.transport
        self._waiting += 1
        self._move()
        try:
            await self._slots.acquire()
        finally:
            self._waiting -= 1
            self._move()
        if transport is not None:
            self._open.add(transport)
        try:
            yield
        finally:
            self._slots.release()
            if transport is not None:
                self._open.discard(transport)
            if seen.ended == "running":
                seen.ended = "left"
            self._move()

    def _move(self) -> None:
        self._moved.set()
        self._moved = anyio.Event()

    async def _answer(
        self, request: web.Request, asked: Generation, behaviour: Behaviour, seen: Seen
    ) -> web.StreamResponse:
        frames = Frames(asked, model=self.name, cached_tokens=self._cached(asked), now=int(time.time()))
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        if asked.stream:
            await response.prepare(request)
            await response.write(frames.opening())
        async with aclosing(self._steps(request, asked, behaviour)) as steps:
            async for step in steps:
                seen.answer_tokens += 1
                frame = frames.feed(step)
                if asked.stream:
                    # A frame that is no JSON, as a broken proxy would leave one.
                    garbled = behaviour.garble_after == seen.answer_tokens - 1
                    await response.write(b"data: {broken\n\n" if garbled else frame)
                seen.ended = step.finish_reason or seen.ended
        if seen.ended == "running":
            seen.ended = "cut"
            return response
        if not asked.stream:
            return web.Response(body=frames.whole(), content_type="application/json")
        await response.write(frames.closing())
        await response.write_eof()
        return response

    async def _steps(self, request: web.Request, asked: Generation, behaviour: Behaviour) -> AsyncGenerator[Step]:
        prefill = len(asked.prompt_ids) / behaviour.prefill_tokens_per_second
        pause = behaviour.first_token_seconds + prefill
        for n, step in enumerate(speak_to(asked, behaviour)):
            if n == behaviour.stall_after:
                await self._told.wait()
            if n == behaviour.die_after:
                self._become(msgspec.structs.replace(behaviour.healed(), dead=True))
            if n in {behaviour.drop_after, behaviour.die_after}:
                _cut(request)
                return
            await asyncio.sleep(pause)
            pause = behaviour.token_seconds
            yield step

    def _cached(self, asked: Generation) -> int:
        """Return how much of the prompt a prefix cache with vLLM's blocks of 16 would hold, and remember the prompt."""
        best = 0
        for salt, ids in self._cache:
            if salt == asked.cache_salt:
                pairs = enumerate(zip(ids, asked.prompt_ids, strict=False))
                best = max(best, next((n for n, (a, b) in pairs if a != b), min(len(ids), len(asked.prompt_ids))))
        self._cache.append((asked.cache_salt, asked.prompt_ids))
        return min(best, len(asked.prompt_ids) - 1) // 16 * 16


def speak_to(asked: Generation, behaviour: Behaviour) -> list[Step]:
    """Return the whole answer to a request."""
    return list(
        speak(
            asked.prompt_ids,
            behaviour,
            max_tokens=asked.max_tokens,
            stop=asked.stop,
            probing=asked.top_logprobs is not None,
        )
    )


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


@asynccontextmanager
async def scripted_server(
    behaviour: Behaviour | None = None, *, port: int = 0, name: str = "scripted"
) -> AsyncGenerator[ScriptedModel]:
    """Serve a scripted model on loopback while the context is open; port 0 takes a free one."""
    model = ScriptedModel(behaviour or Behaviour(), name=name)
    # handler_cancellation: a client that leaves frees its slot at once, as with vLLM.
    runner = web.AppRunner(model.app(), handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", port, reuse_address=True)
        await site.start()
        model.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield model
    finally:
        await runner.cleanup()


def main(
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1; 0 takes a free one.")] = 0,
    script: Annotated[Path | None, typer.Option(help="JSON file with the fields of a Behaviour.")] = None,
    tokenizer_folder: Annotated[Path | None, typer.Option(help="Write the model's tokenizer there.")] = None,
    name: Annotated[str, typer.Option(help="The served model's name.")] = "scripted",
) -> None:
    """Serve a model that speaks vLLM's API and does as it is told, until Ctrl-C."""
    behaviour = msgspec.json.decode(script.read_bytes(), type=Behaviour) if script else Behaviour()
    if tokenizer_folder:
        write_tokenizer(tokenizer_folder)

    async def serve() -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async with scripted_server(behaviour, port=port, name=name) as server:
                typer.echo(f"ready {server.url}")
                async for _ in signals:
                    return

    anyio.run(serve)
