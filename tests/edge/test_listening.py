"""Properties of every connection that a service accepts."""

import gc
import resource
import socket
from asyncio import Transport
from pathlib import Path

import anyio
import httpx2
import pytest
from fastapi import FastAPI

from edge import bind, listening
from edge.connection_limits import LimitedConnection

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).parents[2]


async def test_replies_are_sent_without_nagles_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nagle's algorithm holds the second packet of a reply for 40 ms, and every event of a stream."""
    delays: list[bool] = []
    made = LimitedConnection.connection_made

    def connection_made(self: LimitedConnection, transport: Transport) -> None:
        accepted = transport.get_extra_info("socket")
        made(self, transport)
        delays.append(not accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    monkeypatch.setattr(LimitedConnection, "connection_made", connection_made)
    with bind("127.0.0.1", 0) as bound:
        async with listening(FastAPI(), bound), httpx2.AsyncClient() as http:
            await http.get(f"http://127.0.0.1:{bound.getsockname()[1]}/")
    assert delays == [False]


async def test_many_objects_cause_no_full_garbage_collection() -> None:
    """A full garbage collection with 5,000 streams pauses every answer of the process for more than a second."""
    full, thresholds = list[int](), gc.get_threshold()

    def note(phase: str, info: dict[str, int]) -> None:
        if phase == "start" and info["generation"] == 2:
            full.append(info["generation"])

    with bind("127.0.0.1", 0) as bound:
        async with listening(FastAPI(), bound):
            gc.callbacks.append(note)
            try:
                objects = [[n] for n in range(300_000)]
            finally:
                gc.callbacks.remove(note)
    assert len(objects) == 300_000
    assert full == []
    assert gc.get_threshold() == thresholds


async def test_a_server_raises_its_limit_of_open_files() -> None:
    """Many machines allow 1,024 files; with 768 for customers, the models and Redis would have too few."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    try:
        with bind("127.0.0.1", 0) as bound:
            async with listening(FastAPI(), bound):
                assert resource.getrlimit(resource.RLIMIT_NOFILE) == (min(hard, 65_536), hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_a_failed_block_ends_running_requests_and_closes_the_port() -> None:
    app, arrived, replies = FastAPI(), anyio.Event(), list[httpx2.Response]()

    class Failed(Exception):
        pass

    @app.get("/slow")
    async def slow() -> str:
        arrived.set()
        await anyio.sleep(0.3)
        return "answered"

    async def ask(url: str) -> None:
        async with httpx2.AsyncClient() as http:
            replies.append(await http.get(url))

    bound = bind("127.0.0.1", 0)
    port = bound.getsockname()[1]
    async with anyio.create_task_group() as group:
        with pytest.RaisesGroup(Failed):
            async with listening(app, bound):
                group.start_soon(ask, f"http://127.0.0.1:{port}/slow")
                await arrived.wait()
                raise Failed
        with pytest.raises(OSError, match="connect"):
            await anyio.connect_tcp("127.0.0.1", port)
    assert [reply.json() for reply in replies] == ["answered"]
