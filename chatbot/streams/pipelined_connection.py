"""One connection for the scripts of a process's answers: they are written as they come and answered in order.

A client takes a connection from its pool for each command, guards each with timers of its own and reads through a
stream and a task; at the pace of tokens that costs more than the command (`make bench` measures the log's cost). Here
the client's pool only says how to connect (address, TLS, credentials, database), and an asyncio protocol packs, parses
and wakes. It speaks RESP2, so that nothing but replies comes from Redis. A late reply breaks the connection, as does a
Redis that is no master any more, and the next script opens another.
"""

import asyncio
import socket
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import anyio
import hiredis
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, UnixDomainSocketConnection
from redis.commands.core import AsyncScript
from redis.exceptions import ClusterDownError, NoScriptError, ReadOnlyError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError

from chatbot.redis_client import DEMOTED, in_time, more_time

Argument = str | bytes | int


class PipelinedConnection:
    """Runs scripts on a connection of its own, made as the client's pool makes them."""

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
        packed = _pack(("EVALSHA", script.sha, len(keys), *keys, *args))
        may_be_stale, may_be_new = self._wire is not None and not self._wire.broken, True
        while True:
            try:
                wire = self._wire
                if wire is None or wire.broken:
                    wire = await in_time(lambda: self._reopened(within), within)
                return await wire.ask(packed, within)
            except NoScriptError:
                if not may_be_new:
                    raise
                may_be_new = False
                await in_time(lambda: self._redis.script_load(script.script), within)
            except (RedisConnectionError, *DEMOTED):
                if not may_be_stale:
                    raise
                may_be_stale = False

    def close(self) -> None:
        """Break the connection; every command that waits for a reply fails."""
        if self._wire is not None:
            self._wire.break_off()

    async def _reopened(self, within: float) -> "_Wire":
        """Return a wire that is not broken: one for all commands that find it broken at once."""
        async with self._opening:
            wire = self._wire
            if wire is None or wire.broken:
                target = self._redis.connection_pool.make_connection()  # type: ignore[no-untyped-call]
                self._wire = wire = await _connected(target, within)
            return wire


class _Wire(asyncio.Protocol):
    """The protocol of a connection: the commands that wait for their replies, in order."""

    _transport: asyncio.Transport

    def __init__(self) -> None:
        self._reader = hiredis.Reader(replyError=_error, notEnoughData=_INCOMPLETE)
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self.broken = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take commands from now on."""
        self._transport = cast("asyncio.Transport", transport)

    async def ask(self, packed: bytes, within: float) -> Any:
        """Return the reply to a packed command.

        Raises:
            RedisError: it was refused, or the connection broke.
            TimeoutError: no reply within so many seconds.
        """
        if self.broken:
            raise RedisConnectionError(_BROKE)
        loop = asyncio.get_running_loop()
        reply: asyncio.Future[Any] = loop.create_future()
        self._waiting.append(reply)
        self._transport.write(packed)
        due = loop.time() + within
        timer = loop.call_at(due, self._late, reply, due)
        try:
            return await reply
        except (ResponseError, asyncio.CancelledError):  # nobody waits for the reply any more: it is passed over
            raise
        except BaseException:  # given up, or broken: what gives no reply in time may never give one
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
        """Give each waiting command its reply."""
        self._reader.feed(data)
        while (value := self._reader.gets()) is not _INCOMPLETE:
            if not self._waiting:
                self.break_off()
                return
            reply = self._waiting.popleft()
            if not reply.done():
                if isinstance(value, RedisError):
                    reply.set_exception(value)
                else:
                    reply.set_result(value)
            if isinstance(value, (RedisConnectionError, *DEMOTED)):
                self.break_off()
                return

    def connection_lost(self, _: Exception | None) -> None:
        """Fail every command that waits."""
        self.break_off()

    def break_off(self) -> None:
        """Close the connection; a second time does nothing."""
        if self.broken:
            return
        self.broken = True
        self._transport.abort()
        while self._waiting:
            reply = self._waiting.popleft()
            if not reply.done():
                reply.set_exception(RedisConnectionError(_BROKE))


_BROKE = "the connection broke"
_INCOMPLETE = object()
_ERRORS: dict[str, type[RedisError]] = {
    "NOSCRIPT": NoScriptError,
    "READONLY": ReadOnlyError,
    "CLUSTERDOWN": ClusterDownError,
    "LOADING": RedisConnectionError,
    "MASTERDOWN": RedisConnectionError,
}
_pack = cast("Callable[[tuple[Argument, ...]], bytes]", hiredis.pack_command)


def _error(message: str) -> Exception:
    """Return the exception of an error reply; a Redis that loads, or has lost its master, counts as not there."""
    return _ERRORS.get(message.partition(" ")[0], ResponseError)(message)


async def _connected(target: AbstractConnection, within: float) -> _Wire:
    """Return a wire to what an unconnected connection of redis-py describes, authenticated and in its database.

    Raises:
        RedisConnectionError: Redis cannot be reached, or does not accept the credentials or the database.
        TimeoutError: it did not reply within so many seconds.
    """
    greeting = _greeting(target)
    try:
        wire = await _dialled(target)
    except OSError as exc:
        raise RedisConnectionError(str(exc)) from exc
    try:
        for command in greeting:
            await wire.ask(_pack(command), within)
    except BaseException as exc:
        wire.break_off()
        if isinstance(exc, ResponseError):
            raise RedisConnectionError(str(exc)) from exc
        raise
    return wire


async def _dialled(target: AbstractConnection) -> _Wire:
    loop = asyncio.get_running_loop()
    if isinstance(target, UnixDomainSocketConnection):
        return (await loop.create_unix_connection(_Wire, target.path))[1]
    address, tls = cast("Connection", target), None
    if isinstance(address, SSLConnection):
        tls = address.ssl_context.get()
    transport, wire = await loop.create_connection(_Wire, address.host, address.port, ssl=tls)
    if address.socket_keepalive:
        tcp = transport.get_extra_info("socket")
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in cast("Mapping[int, int]", address.socket_keepalive_options).items():
            tcp.setsockopt(socket.IPPROTO_TCP, option, value)
    return wire


def _greeting(target: AbstractConnection) -> list[tuple[Argument, ...]]:
    """Return the commands that come first on a connection: credentials, name, database."""
    commands: list[tuple[Argument, ...]] = []
    if target.username or target.password:
        commands.append(("AUTH", target.username or "default", target.password or ""))
    if target.client_name:
        commands.append(("CLIENT", "SETNAME", target.client_name))
    if target.db:
        commands.append(("SELECT", target.db))
    return commands


@asynccontextmanager
async def open_pipelined_connection(redis: Redis) -> AsyncGenerator[PipelinedConnection]:
    """Keep a pipelined connection while the block runs."""
    connection = PipelinedConnection(redis)
    try:
        yield connection
    finally:
        connection.close()
