"""One connection for the scripts of a process's answers: those that are due together are sent in one write.

A client takes a connection from its pool for each command and guards each with timers of its own; at the pace of tokens
that costs more than the command (`make bench` measures the log's cost). A late reply breaks the connection, as does a
Redis that is no master any more, and the next script opens another.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
from redis.asyncio import Redis
from redis.commands.core import AsyncScript
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError, ResponseError

from chatbot.redis_client import DEMOTED, in_time, more_time
from telemetry.supervision import supervise

Argument = str | bytes | int


@dataclass(frozen=True, slots=True)
class _Call:
    """A command, and the future of its reply."""

    command: tuple[Argument, ...]
    reply: asyncio.Future[Any]


class PipelinedConnection:
    """Runs scripts on a connection of its own, made as the client's pool makes them, while `serve` runs."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._due: list[_Call] = []
        self._any_due = asyncio.Event()
        self._exchange = anyio.CancelScope()

    async def run(self, script: AsyncScript, keys: Sequence[str], args: Sequence[Argument], *, within: float) -> Any:
        """Return a script's reply; it may have run twice where a connection broke, so that must not matter.

        Raises:
            RedisError: Redis refused it, or cannot be reached.
            TimeoutError: no reply within so many seconds.
        """
        command = ("EVALSHA", script.sha, len(keys), *keys, *args)
        may_be_new = may_be_stale = True
        while True:
            try:
                return await self._ask(command, within)
            except NoScriptError:
                if not may_be_new:
                    raise
                may_be_new = False
                await in_time(lambda: self._redis.script_load(script.script), within)
            except (RedisConnectionError, *DEMOTED):
                if not may_be_stale:
                    raise
                may_be_stale = False

    async def _ask(self, command: tuple[Argument, ...], within: float) -> Any:
        loop = asyncio.get_running_loop()
        reply, due = loop.create_future(), loop.time() + within
        self._due.append(_Call(command, reply))
        self._any_due.set()
        timer = loop.call_at(due, self._late, reply, due)
        try:
            return await reply
        finally:
            timer.cancel()

    def _late(self, reply: asyncio.Future[Any], due: float) -> None:
        """Close the connection if a reply is late: it may never arrive."""
        if more := more_time(due):
            asyncio.get_running_loop().call_later(more, self._late, reply, math.inf)
        elif not reply.done():
            reply.set_exception(TimeoutError())
            self._exchange.cancel()

    async def serve(self) -> None:
        """Send what is due and read the replies, until cancelled."""
        connection = self._redis.connection_pool.make_connection()  # type: ignore[no-untyped-call]
        try:
            while True:
                await self._any_due.wait()
                self._any_due.clear()
                calls, self._due = [call for call in self._due if not call.reply.done()], []
                error: Exception = RedisConnectionError("the connection broke")
                broken = True
                with anyio.CancelScope() as self._exchange:
                    try:
                        await connection.send_packed_command(connection.pack_commands(call.command for call in calls))
                        for call in calls:
                            await _read(connection, call.reply)
                        broken = False
                    except (RedisError, OSError) as exc:
                        error = exc
                if broken:
                    await connection.disconnect(nowait=True)
                for call in calls:
                    if not call.reply.done():
                        call.reply.set_exception(RedisConnectionError(str(error)))
        finally:
            await connection.disconnect(nowait=True)


async def _read(connection: Any, reply: asyncio.Future[Any]) -> None:
    """Read the next reply, even if its caller was cancelled.

    Raises:
        RedisError: the connection broke, or leads to no master.
    """
    try:
        value = await connection.read_response()
    except DEMOTED as exc:
        if not reply.done():
            reply.set_exception(exc)
        raise RedisConnectionError("not a master any more") from exc
    except ResponseError as exc:
        if not reply.done():
            reply.set_exception(exc)
    else:
        if not reply.done():
            reply.set_result(value)


@asynccontextmanager
async def open_pipelined_connection(redis: Redis) -> AsyncGenerator[PipelinedConnection]:
    """Keep a pipelined connection while the block runs."""
    connection = PipelinedConnection(redis)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(supervise, "scripts", connection.serve)
        yield connection
        tasks.cancel_scope.cancel()
