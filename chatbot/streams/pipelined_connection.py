"""One connection on which all answers of a process append: scripts are written as they come and answered in order.

A client takes a connection from its pool for each command, guards each with timers of its own and reads through a
stream and a task; at the pace of tokens that costs more than the command.  Here redis-py makes the connection (address,
TLS, password), and from then on its transport speaks to a protocol that only packs, parses and wakes (`make bench`:
what the log costs).  A late reply breaks the connection, so that nothing is ever left waiting on it, and the next
script opens another.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import hiredis
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.commands.core import AsyncScript
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ResponseError

from chatbot.redis_client import in_time, more_time

Argument = str | bytes | int


class PipelinedConnection:
    """Runs scripts on a connection of its own, made as the client's pool makes them (`open_line`)."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._wire: _Wire | None = None
        self._opening = anyio.Lock()

    async def run(self, script: AsyncScript, keys: Sequence[str], args: Sequence[Argument], *, within: float) -> Any:
        """Return a script's reply; it may have run twice where a connection broke, so that must not matter.

        Raises:
            RedisError: Redis refused it, or cannot be reached.
            TimeoutError: no reply within so many seconds, or no connection.
        """
        packed = hiredis.pack_command(("EVALSHA", script.sha, len(keys), *keys, *args))  # type: ignore[arg-type]  # any length
        may_be_stale, may_be_new = self._wire is not None and not self._wire.broken, True
        while True:
            try:
                return await self._ask(packed, within)
            except NoScriptError:
                if not may_be_new:
                    raise
                may_be_new = False
                await in_time(lambda: self._redis.script_load(script.script), within)
            except RedisConnectionError:
                if not may_be_stale:
                    raise
                may_be_stale = False

    def close(self) -> None:
        """Break the connection; whoever waits on it is told so."""
        if self._wire is not None:
            self._wire.break_off()

    async def _ask(self, packed: bytes, within: float) -> Any:
        wire = self._wire
        if wire is None or wire.broken:
            wire = await in_time(self._reopened, within)
        return await wire.ask(packed, within)

    async def _reopened(self) -> "_Wire":
        """Return a wire that holds: one for all who find it broken at once."""
        async with self._opening:
            wire = self._wire
            if wire is None or wire.broken:
                connection = self._redis.connection_pool.make_connection()  # type: ignore[no-untyped-call]
                await connection.connect()
                self._wire = wire = _Wire(connection)
            return wire


class _Wire(asyncio.Protocol):
    """The transport of a connection that is through with its handshake, and who waits for its replies, in order."""

    def __init__(self, connection: AbstractConnection) -> None:
        self._connection = connection
        self._transport: asyncio.WriteTransport = connection._writer.transport  # type: ignore[union-attr]  # noqa: SLF001  no other way
        self._transport.set_protocol(self)
        self._reader = hiredis.Reader(replyError=_refusal, notEnoughData=_INCOMPLETE)
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self.broken = self._transport.is_closing()

    async def ask(self, packed: bytes, within: float) -> Any:
        """Return the reply to a packed command.

        Raises:
            RedisError: it was refused, or the connection broke.
            TimeoutError: no reply within so many seconds.
        """
        loop = asyncio.get_running_loop()
        reply: asyncio.Future[Any] = loop.create_future()
        self._waiting.append(reply)
        self._transport.write(packed)
        timer = loop.call_later(within, self._late, reply, loop.time() + within)
        try:
            return await reply
        except ResponseError:
            raise
        except BaseException:  # given up, or broken: what came now would be taken for the next one's reply
            self.break_off()
            raise
        finally:
            timer.cancel()

    def _late(self, reply: asyncio.Future[Any], due: float) -> None:
        if more := more_time(due):
            asyncio.get_running_loop().call_later(more, self._give_up, reply)
        else:
            self._give_up(reply)

    def _give_up(self, reply: asyncio.Future[Any]) -> None:
        if not reply.done():
            reply.set_exception(TimeoutError())

    def data_received(self, data: bytes) -> None:
        """Give everybody their reply."""
        self._reader.feed(data)
        while (said := self._reader.gets()) is not _INCOMPLETE:
            if isinstance(said, RedisConnectionError) or not self._waiting:
                self.break_off()
                return
            reply = self._waiting.popleft()
            if reply.done():
                continue
            if isinstance(said, ResponseError):
                reply.set_exception(said)
            else:
                reply.set_result(said)

    def connection_lost(self, _: Exception | None) -> None:
        """Tell everybody who waits that no reply will come."""
        self.break_off()

    def break_off(self) -> None:
        """Close the connection; a second time does nothing."""
        if self.broken:
            return
        self.broken = True
        self._transport.abort()
        self._connection._close()  # type: ignore[no-untyped-call]  # noqa: SLF001  `disconnect` waits
        while self._waiting:
            reply = self._waiting.popleft()
            if not reply.done():
                reply.set_exception(RedisConnectionError("the connection broke"))


_INCOMPLETE = object()


def _refusal(message: str) -> Exception:
    """Return what a refusal means: one that a Redis gives which is not ready yet is a connection that is not there."""
    if message.startswith("NOSCRIPT"):
        return NoScriptError(message)
    if message.startswith("LOADING"):
        return RedisConnectionError(message)
    return ResponseError(message)


@asynccontextmanager
async def open_pipelined_connection(redis: Redis) -> AsyncGenerator[PipelinedConnection]:
    """Keep a line while the block runs."""
    line = PipelinedConnection(redis)
    try:
        yield line
    finally:
        line.close()
