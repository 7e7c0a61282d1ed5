"""An OpenAI-compatible embeddings server on loopback, in front of a real embedder, with an optional key and optional
mutual TLS of the tests' own authority."""

import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
from aiohttp import web

from tests.certificates import server_context

Embed = Callable[[Sequence[str]], Awaitable[list[list[float]]]]


@dataclass
class EmbeddingServer:
    """Records the requests; `replies` are sent in place of vectors, once each, oldest first."""

    embed: Embed
    name: str
    key: str | None = None
    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: set[str | None] = field(default_factory=set)
    replies: list[web.Response] = field(default_factory=list)
    running: int = 0
    most_running: int = 0
    gate: anyio.Event | None = None
    """If present, requests wait until it is set."""

    async def embeddings(self, request: web.Request) -> web.Response:
        self.running += 1
        self.most_running = max(self.running, self.most_running)
        try:
            return await self._reply(request)
        finally:
            self.running -= 1

    async def _reply(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.bodies.append(body)
        self.keys.add(request.headers.get("authorization"))
        if self.gate is not None:
            await self.gate.wait()
        if self.key is not None and request.headers.get("authorization") != f"Bearer {self.key}":
            return web.json_response({"error": {"message": "wrong key", "code": 401}}, status=401)
        if self.replies:
            return self.replies.pop(0)
        if body["model"] != self.name:
            message = f"The model `{body['model']}` does not exist."
            return web.json_response({"error": {"message": message, "code": 404}}, status=404)
        vectors = await self.embed(body["input"])
        data = [{"object": "embedding", "index": n, "embedding": vector} for n, vector in enumerate(vectors)]
        return web.json_response({"object": "list", "data": data[::-1], "model": self.name})


@asynccontextmanager
async def embedding_server(
    embed: Embed, *, name: str = "served", key: str | None = None, certificates: Path | None = None
) -> AsyncGenerator[EmbeddingServer]:
    """Serve while the block runs; `certificates` is a folder of `tests.certificates`."""
    server, app, tls = EmbeddingServer(embed, name, key), web.Application(client_max_size=2**26), None
    if certificates is not None:
        tls = server_context(certificates)
        tls.load_verify_locations(certificates / "ca.pem")
        tls.verify_mode = ssl.CERT_REQUIRED
    app.router.add_post("/v1/embeddings", server.embeddings)
    async with listening(app, tls) as server.url:
        yield server


@asynccontextmanager
async def listening(app: web.Application, tls: ssl.SSLContext | None = None) -> AsyncGenerator[str]:
    """Serve an app on a free port while the block runs; yield its URL."""
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        yield f"{'https' if tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
