"""One connection on which all answers of a process append: scripts are written as they come and answered in order.

A client takes a connection from its pool for each command and guards each with timers of its own; at the pace of
tokens that costs more than the command. Deadlines are the breaker's: whoever gives up on a reply breaks the connection,
so that nothing is ever left waiting on it, and the next script opens another.
"""

import asyncio
import math
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
from anyio.abc import TaskGroup
from hiredis import pack_command
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.commands.core import AsyncScript
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError, ResponseError

Argument = str | bytes | int


class RedisLine:
    """Runs scripts on a connection of its own, made as the client's pool makes them (`open_line`)."""

    def __init__(self, redis: Redis, tasks: TaskGroup) -> None:
        self._redis = redis
        self._tasks = tasks
        self._wire: _Wire | None = None
        self._opening = anyio.Lock()

    async def run(self, script: AsyncScript, keys: Sequence[str], args: Sequence[Argument]) -> Any:
        """Return a script's reply; it may have run twice where a connection broke, so that must not matter.

        Raises:
            RedisError: Redis refused it, or cannot be reached.
        """
        packed = pack_command(("EVALSHA", script.sha, len(keys), *keys, *args))  # type: ignore[arg-type]  # any length
        may_be_stale, may_be_new = self._wire is not None and not self._wire.broken, True
        while True:
            try:
                return await self._ask(packed)
            except NoScriptError:
                if not may_be_new:
                    raise
                may_be_new = False
                await self._redis.script_load(script.script)
            except RedisConnectionError:
                if not may_be_stale:
                    raise
                may_be_stale = False

    async def _ask(self, packed: bytes) -> Any:
        wire = self._wire
        if wire is None or wire.broken:
            wire = await self._reopened()
        return await wire.ask(packed)

    async def _reopened(self) -> "_Wire":
        """Return a wire that holds: one for all who find it broken at once."""
        async with self._opening:
            wire = self._wire
            if wire is None or wire.broken:
                connection = self._redis.connection_pool.make_connection()  # type: ignore[no-untyped-call]
                await connection.connect()
                connection.socket_timeout = None  # the breaker's deadline covers both ways
                self._wire = wire = _Wire(connection)
                self._tasks.start_soon(wire.read)
            return wire


class _Wire:
    """A connection, and who waits for its replies, in order."""

    def __init__(self, connection: AbstractConnection) -> None:
        self._connection = connection
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._scope = anyio.CancelScope()
        self.broken = False

    async def ask(self, packed: bytes) -> Any:
        """Return the reply to a packed command.

        Raises:
            RedisError: it was refused, or the connection broke.
        """
        reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append(reply)
        try:
            await self._connection.send_packed_command([packed], check_health=False)
            return await reply
        except ResponseError:
            raise
        except BaseException:  # given up, or broken: what came now would be taken for the next one's reply
            self._break()
            raise

    async def read(self) -> None:
        """Give everybody their reply, until the connection breaks or is broken."""
        try:
            with self._scope, suppress(RedisError, OSError):
                while True:
                    await self._read_one()
        finally:
            self._break()
            with anyio.CancelScope(shield=True):
                await self._connection.disconnect(nowait=True)

    async def _read_one(self) -> None:
        said: Any
        try:
            said = await self._connection.read_response(timeout=math.inf, disconnect_on_error=False)
        except ResponseError as refused:
            said = refused
        reply = self._waiting.popleft()
        if reply.done():
            return
        if isinstance(said, ResponseError):
            reply.set_exception(said)
        else:
            reply.set_result(said)

    def _break(self) -> None:
        self.broken = True
        self._scope.cancel()
        while self._waiting:
            reply = self._waiting.popleft()
            if not reply.done():
                reply.set_exception(RedisConnectionError("the connection broke"))


@asynccontextmanager
async def open_line(redis: Redis) -> AsyncGenerator[RedisLine]:
    """Keep a line while the block runs."""
    async with anyio.create_task_group() as tasks:
        try:
            yield RedisLine(redis, tasks)
        finally:
            tasks.cancel_scope.cancel()
