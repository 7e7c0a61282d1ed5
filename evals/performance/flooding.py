"""`python flooding.py FLOOD PORT ISSUER AUDIENCE`: floods a port of this machine until it is stopped.

A process of its own at a lower priority, which loads nothing that it does not need.
"""

import os
import resource
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from uuid import uuid4

import anyio
import jwt
from anyio.abc import SocketStream
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

HEADS, TRICKLES, IDLE, UNKNOWN_KEYS = 20, 200, 1000, 20  # connections
HEAD_LINE = b"x-filler: " + b"a" * 1000 + b"\r\n"
TRICKLED_HEAD = b"POST /v1/chat HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 60000\r\n\r\n"
FILES = 4096


async def endless_head(port: int) -> None:
    """Send a head that has no end, as fast as it is taken."""
    async with await anyio.connect_tcp("127.0.0.1", port) as stream:
        await stream.send(b"GET /v1/chat HTTP/1.1\r\nhost: x\r\n")
        while True:
            await stream.send(HEAD_LINE)


async def trickled_body(port: int) -> None:
    """Send a byte of a body ten times a second."""
    async with await anyio.connect_tcp("127.0.0.1", port) as stream:
        await stream.send(TRICKLED_HEAD)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_until_closed, stream)
            while True:
                await stream.send(b" ")
                await anyio.sleep(0.1)


async def idle_connection(port: int) -> None:
    """Say nothing until the connection is closed."""
    async with await anyio.connect_tcp("127.0.0.1", port) as stream:
        await _until_closed(stream)


async def unknown_key(port: int) -> None:
    """Ask with a token that is signed by a key which nobody publishes, on one connection, until it is closed."""
    key, now = generate_private_key(SECP256R1()), int(time.time())
    claims = {"iss": sys.argv[3], "aud": sys.argv[4], "sub": "x", "tenant": "floods", "iat": now, "exp": now + 600}
    async with await anyio.connect_tcp("127.0.0.1", port) as stream:
        while True:
            token = jwt.encode(claims, key, algorithm="ES256", headers={"kid": uuid4().hex})
            head = f"GET /v1/conversations HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n"
            await stream.send(head.encode())
            await stream.receive()
            await anyio.sleep(0.1)


async def _until_closed(stream: SocketStream) -> None:
    while True:
        await stream.receive()


FLOODS: Mapping[str, tuple[int, Callable[[int], Awaitable[None]]]] = {
    "endless heads": (HEADS, endless_head),
    "trickled bodies": (TRICKLES, trickled_body),
    "idle connections": (IDLE, idle_connection),
    "unknown keys": (UNKNOWN_KEYS, unknown_key),
}


async def attack(name: str, port: int) -> None:
    """Hold as many connections as a flood has, each opened anew when it is closed."""
    os.nice(10)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(FILES, hard), hard))
    count, hold = FLOODS[name]

    async def again() -> None:
        while True:
            with suppress(anyio.EndOfStream, anyio.BrokenResourceError, OSError):
                await hold(port)
            await anyio.sleep(0.5)

    async with anyio.create_task_group() as tasks:
        for _ in range(count):
            tasks.start_soon(again)
        await anyio.sleep(1)
        print("flooding", flush=True)  # noqa: T201  who measures waits for it


if __name__ == "__main__":
    anyio.run(attack, sys.argv[1], int(sys.argv[2]), backend_options={"use_uvloop": True})
