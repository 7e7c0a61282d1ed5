"""An OpenAI-compatible embeddings server on loopback, in front of a real embedder, with an optional key and optional
mutual TLS of the tests' own authority."""

import socket
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

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
    encodings: set[str | None] = field(default_factory=set)
    connections: set[Any] = field(default_factory=set)
    replies: list[Response] = field(default_factory=list)
    running: int = 0
    most_running: int = 0
    gate: anyio.Event | None = None
    """If present, requests wait until it is set."""

    @property
    def asked(self) -> int:
        return len(self.bodies)

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.post("/v1/embeddings")
        async def embeddings(request: Request) -> Response:
            self.running += 1
            self.most_running = max(self.running, self.most_running)
            try:
                return await self._reply(request)
            finally:
                self.running -= 1

        return app

    async def _reply(self, request: Request) -> Response:
        body = await request.json()
        self.bodies.append(body)
        self.keys.add(request.headers.get("authorization"))
        self.encodings.add(request.headers.get("accept-encoding"))
        self.connections.add(request.client)
        if self.gate is not None:
            await self.gate.wait()
        if self.key is not None and request.headers.get("authorization") != f"Bearer {self.key}":
            return JSONResponse({"error": {"message": "wrong key", "code": 401}}, status_code=401)
        if self.replies:
            return self.replies.pop(0)
        if body["model"] != self.name:
            message = f"The model `{body['model']}` does not exist."
            return JSONResponse({"error": {"message": message, "code": 404}}, status_code=404)
        vectors = await self.embed(body["input"])
        data = [{"object": "embedding", "index": n, "embedding": vector} for n, vector in enumerate(vectors)]
        return JSONResponse({"object": "list", "data": data[::-1], "model": self.name})


class _Server(uvicorn.Server):
    """A server that does not handle signals."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def embedding_server(
    embed: Embed, *, name: str = "served", key: str | None = None, certificates: Path | None = None
) -> AsyncGenerator[EmbeddingServer]:
    """Serve while the block runs; `certificates` is a folder of `tests.certificates`."""
    server = EmbeddingServer(embed, name, key)
    tls: dict[str, Any] = {}
    if certificates is not None:
        tls = {
            "ssl_certfile": certificates / "server.pem",
            "ssl_keyfile": certificates / "server.key",
            "ssl_ca_certs": str(certificates / "ca.pem"),
            "ssl_cert_reqs": ssl.CERT_REQUIRED,
        }
    served = _Server(uvicorn.Config(server.app(), log_config=None, lifespan="off", **tls))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server.url = f"{'https' if tls else 'http'}://127.0.0.1:{listener.getsockname()[1]}"

        async def serve() -> None:
            # If cancelled, it would leave the listener's file descriptor in the event loop shared by all tests, and the
            # next socket with that descriptor would receive nothing.
            with anyio.CancelScope(shield=True):
                await served.serve([listener])

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve)
            while not served.started:
                await anyio.sleep(0.01)
            try:
                yield server
            finally:
                served.should_exit = True
                served.force_exit = True
