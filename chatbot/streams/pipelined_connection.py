"""One connection for the scripts of a process's answers: those that are due together are sent in one write.

A client takes a connection from its pool for each command; at the pace of tokens that costs more than the command
(`make bench` measures the log's cost).
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
from redis.asyncio import Redis
from redis.commands.core import AsyncScript
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError, ResponseError

from chatbot.redis_client import DEMOTED, in_time
from telemetry.supervision import supervise

Argument = str | bytes | int | memoryview
_Call = tuple[Sequence[Argument], asyncio.Future[Any]]
"""A command, and the future of its reply."""


class PipelinedConnection:
    """Runs scripts on a connection of its own, made as the client's pool makes them, while `serve` runs."""

    def __init__(self, redis: Redis, *, slow_after: float) -> None:
        """`slow_after` is the deadline of a reply in seconds; the connection is closed when one is late."""
        self._redis = redis
        self._slow_after = slow_after
        self._due: list[_Call] = []
        self._any_due = asyncio.Event()

    async def run(self, script: AsyncScript, keys: Sequence[str], args: Sequence[Argument]) -> Any:
        """Return a script's reply; it may have run twice where a connection broke.

        Raises:
            RedisError: Redis refused it, or cannot be reached.
        """
        try:
            return await self._ask(("EVALSHA", script.sha, len(keys), *keys, *args))
        except (NoScriptError, RedisConnectionError, *DEMOTED):
            # Redis was restarted, or this connection no longer leads to the master. EVAL brings the script along.
            return await self._ask(("EVAL", script.script, len(keys), *keys, *args))

    async def _ask(self, command: Sequence[Argument]) -> Any:
        reply = asyncio.get_running_loop().create_future()
        self._due.append((command, reply))
        self._any_due.set()
        return await reply

    async def serve(self) -> None:
        """Send the due commands and read their replies, until cancelled."""
        connection = self._redis.connection_pool.make_connection()  # type: ignore[no-untyped-call]
        try:
            while True:
                await self._any_due.wait()
                self._any_due.clear()
                calls, self._due = [call for call in self._due if not call[1].done()], []
                try:
                    await in_time(lambda: _exchange(connection, calls), self._slow_after)  # noqa: B023  awaited here
                    continue
                except (RedisError, OSError) as exc:
                    error = str(exc) or "no reply in time"
                await connection.disconnect(nowait=True)
                for _, reply in calls:
                    if not reply.done():
                        reply.set_exception(RedisConnectionError(error))
        finally:
            await connection.disconnect(nowait=True)


async def _exchange(connection: Any, calls: Sequence[_Call]) -> None:
    """Send commands and read their replies, also those whose callers were cancelled.

    Raises `RedisError` where the connection broke or leads to a replica.
    """
    await connection.send_packed_command(connection.pack_commands(command for command, _ in calls))
    for _, reply in calls:
        value = error = None
        try:
            value = await connection.read_response()
        except ResponseError as exc:
            error = exc
        if not reply.done():
            reply.set_result(value) if error is None else reply.set_exception(error)
        if isinstance(error, DEMOTED):
            raise RedisConnectionError("not a master any more") from error


@asynccontextmanager
async def open_pipelined_connection(redis: Redis, *, slow_after: float) -> AsyncGenerator[PipelinedConnection]:
    """Keep a pipelined connection while the block runs."""
    connection = PipelinedConnection(redis, slow_after=slow_after)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(supervise, "scripts", connection.serve)
        yield connection
        tasks.cancel_scope.cancel()
