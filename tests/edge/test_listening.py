"""What holds for every connection that a service accepts."""

import socket
from asyncio import Transport

import httpx2
import pytest
from fastapi import FastAPI

from edge import bind, listening
from edge.connection_limits import LimitedConnection

pytestmark = pytest.mark.anyio


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
