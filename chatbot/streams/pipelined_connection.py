"""One connection for the scripts of a process's answers: scripts that wait at the same time are sent in one write.

A client takes a connection from its pool for each command. For a script per token, this costs more than the script
itself (`make bench` measures the log's cost).
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
_Call = tuple[Sequence[Argument], asyncio.Future[Any]]  # a command and the future of its reply


class PipelinedConnection:
    """Runs scripts on one dedicated connection, while `serve` runs."""

    def __init__(self, redis: Redis, *, slow_after: float) -> None:
        """`slow_after` is the deadline of a reply in seconds; a late reply closes the connection."""
        self._redis = redis
        self._slow_after = slow_after
        self._waiting: list[_Call] = []
        self._any_waits = asyncio.Event()

    async def run(self, script: AsyncScript, keys: Sequence[str], args: Sequence[Argument]) -> Any:
        """Run a script and return its reply; it may run twice if the connection breaks.

        Raises:
            RedisError: Redis has rejected the script, or cannot be reached.
        """
        try:
            return await self._send(("EVALSHA", script.sha, len(keys), *keys, *args))
        except (NoScriptError, RedisConnectionError, *DEMOTED):
            # Redis was restarted, or this connection no longer leads to the master. EVAL contains the script's text.
            return await self._send(("EVAL", script.script, len(keys), *keys, *args))

    async def _send(self, command: Sequence[Argument]) -> Any:
        reply = asyncio.get_running_loop().create_future()
        self._waiting.append((command, reply))
        self._any_waits.set()
        return await reply

    async def serve(self) -> None:
        """Send the waiting commands and read their replies, until cancelled."""
        connection = self._redis.connection_pool.make_connection()  # type: ignore[no-untyped-call]
        try:
            while True:
                await self._any_waits.wait()
                self._any_waits.clear()
                calls = [(command, reply) for command, reply in self._waiting if not reply.done()]
                self._waiting = []
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
    """Send commands and read all their replies, also those of cancelled callers.

    Raises `RedisError` if the connection broke, or leads to a replica.
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
    """Yield a pipelined connection, which is served while the block runs."""
    connection = PipelinedConnection(redis, slow_after=slow_after)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(supervise, "scripts", connection.serve)
        yield connection
        tasks.cancel_scope.cancel()
