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


async def test_no_reply_waits_until_what_was_sent_before_is_acknowledged(monkeypatch: pytest.MonkeyPatch) -> None:
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


async def test_what_many_streams_hold_is_not_searched_as_a_whole_again_and_again() -> None:
    """A full garbage collection with 5,000 streams pauses every answer of the process for more than a second."""
    full, thresholds = list[int](), gc.get_threshold()

    def note(phase: str, info: dict[str, int]) -> None:
        if phase == "start" and info["generation"] == 2:
            full.append(info["generation"])

    with bind("127.0.0.1", 0) as bound:
        async with listening(FastAPI(), bound):
            gc.callbacks.append(note)
            try:
                held = [[n] for n in range(300_000)]
            finally:
                gc.callbacks.remove(note)
    assert len(held) == 300_000
    assert full == []
    assert gc.get_threshold() == thresholds


async def test_a_server_may_open_more_files_than_its_machine_gives_a_process_to_begin_with() -> None:
    """Many machines allow 1,024 files; with 768 for customers, the models and Redis would have too few."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    try:
        with bind("127.0.0.1", 0) as bound:
            async with listening(FastAPI(), bound):
                assert resource.getrlimit(resource.RLIMIT_NOFILE) == (min(hard, 65_536), hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_a_block_that_fails_ends_what_is_answered_and_accepts_nobody_after_it() -> None:
    app, asked, replies = FastAPI(), anyio.Event(), list[httpx2.Response]()

    class Failed(Exception):
        pass

    @app.get("/slow")
    async def slow() -> str:
        asked.set()
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
                await asked.wait()
                raise Failed
        with pytest.raises(OSError, match="connect"):
            await anyio.connect_tcp("127.0.0.1", port)
    assert [reply.json() for reply in replies] == ["answered"]
