"""Idempotency-Keys: a request may be sent again, to any replica; its one answer is started once and joined.

The semantics are those of draft-ietf-httpapi-idempotency-key-header. A key is claimed in Redis before any work is done
for the request. Another request with the key waits, and joins the answer once the key is bound to it. If the first
request is rejected, its claim is removed; if its process dies, the claim lapses. The waiting request then claims the
key itself.

A key belongs to (tenant, sub) and stays bound as long as the answer's log exists. It is free again if the answer ends
in a retryable error, or is cancelled because nobody reads it. While Redis is away, keys are bound in this process, and
in Redis afterwards.
"""

import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from typing import ClassVar
from uuid import uuid4
from weakref import WeakValueDictionary

import anyio
import msgspec
from pydantic import BaseModel
from redis.asyncio import Redis

from chatbot.deferred import DeferredWrites
from chatbot.errors import KeyReused, Overloaded, StoreUnavailable
from chatbot.events import Limits
from chatbot.redis_client import RedisBreaker
from chatbot.streams.log import AnswerId, answer_key
from knowledge.identity import Principal

_STILL_CLAIMED = "another request with this Idempotency-Key is still being accepted"
_KEEP_SECONDS = 86_400.0
"""How long a bound key is kept: longer than any log, since a key without its answer's log is free."""
_MOST_UNWRITTEN = 10_000

Begin = Callable[[], Awaitable["StartedAnswer"]]


class IdempotencySettings(BaseModel, frozen=True):
    """How long a claim on an Idempotency-Key lasts, and how long others wait for it."""

    lease: ClassVar[float] = 15.0  # seconds: after which the process of a request without an answer counts as dead
    patience: ClassVar[float] = 30.0  # seconds: how long a request waits for another's claim
    poll_every: ClassVar[float] = 0.05  # seconds: between two reads of that claim
    insist: ClassVar[float] = 1.5  # seconds: how long a command is retried while Redis does not answer


@dataclass(frozen=True, slots=True)
class StartedAnswer:
    """An answer that runs or has run, and what its caller has left where that is known."""

    answer_id: AnswerId
    limits: Limits | None
    joined: bool = False
    """Whether another request started it."""


class KeyClaim(msgspec.Struct, frozen=True, omit_defaults=True):
    """The value of a key: the claim's random token, the digest of the body, and the answer once there is one."""

    token: str
    digest: str
    answer_id: AnswerId | None = None


@dataclass(frozen=True, slots=True)
class KeyRequest:
    """A request with a key: its tenant, the key's name in Redis, its claim, and what starts its answer."""

    tenant: str
    key: str
    claim: KeyClaim
    begin: Begin


class IdempotencyKeys:
    """Starts one answer per key."""

    def __init__(
        self, redis: Redis, breaker: RedisBreaker, settings: IdempotencySettings, *, deferred: DeferredWrites
    ) -> None:
        self._breaker = breaker
        self._settings = settings
        self._deferred = deferred
        self._locks = WeakValueDictionary[str, anyio.Lock]()
        """Per key: the requests of this process ask Redis and start the answer one at a time."""
        self._unwritten: dict[str, KeyClaim] = {}
        """The keys that are bound in this process and not yet in Redis."""
        self._script = redis.register_script((files("chatbot.streams") / "lua" / "claim.lua").read_text("utf-8"))

    async def begin_once(self, who: Principal, key: str | None, digest: str, begin: Begin) -> StartedAnswer:
        """Return what `begin` returns, or the answer that the key is bound to.

        Raises:
            KeyReused: it was used with a body of another digest.
            Overloaded: starting takes longer than half the lease, or another request's claim longer than the patience.
        """
        if key is None:
            return await begin()
        request = KeyRequest(who.tenant, _key(who, key), KeyClaim(uuid4().hex, digest), begin)
        lock = self._locks.setdefault(request.key, anyio.Lock())
        try:
            with anyio.fail_after(self._settings.patience):
                await lock.acquire()
        except TimeoutError as exc:
            raise Overloaded(_STILL_CLAIMED, retry_after=1) from exc
        try:
            return await self._begin_or_join(request)
        finally:
            lock.release()

    async def _begin_or_join(self, request: KeyRequest) -> StartedAnswer:
        try:
            claim = self._unwritten.get(request.key) or await self._claim(request)
        except StoreUnavailable:
            claim = request.claim  # Redis may have executed it, although the reply is missing
        if claim.digest != request.claim.digest:
            raise KeyReused
        if claim.answer_id is not None:
            return StartedAnswer(claim.answer_id, None, joined=True)
        return await self._begin(request)

    async def _claim(self, request: KeyRequest) -> KeyClaim:
        """Claim the key, and return the claim that it has then.

        This is the request's own claim, or another request's that is bound to an answer or has another digest. While
        another request with the same digest holds an unbound claim, try again.

        Raises:
            StoreUnavailable: Redis has been away for `insist` seconds, and no other request is known to hold the key.
            Overloaded: another request holds the key for too long, or Redis became unavailable.
        """
        deadline, failing_since = time.monotonic() + self._settings.patience, math.inf
        held_by_other = False
        while (now := time.monotonic()) < deadline:
            try:
                other = await self._replace(request, request.claim, keep_seconds=self._settings.lease)
            except StoreUnavailable:
                failing_since = min(failing_since, now)
                # One command that is late in a busy process is no outage: another replica may hold the key.
                if max(time.monotonic() - failing_since, self._breaker.away_for) >= self._settings.insist:
                    if held_by_other:
                        break
                    raise
            else:
                if other is None:
                    return request.claim
                if other.digest != request.claim.digest or other.answer_id is not None:
                    return other
                failing_since, held_by_other = math.inf, True
            await anyio.sleep(self._settings.poll_every)
        raise Overloaded(_STILL_CLAIMED, retry_after=1)

    async def _begin(self, request: KeyRequest) -> StartedAnswer:
        bound: KeyClaim | None = None
        try:
            # Another request may take the key when the lease ends. Half of it is left for work that is shielded from
            # this deadline.
            with anyio.fail_after(self._settings.lease / 2):
                started = await request.begin()
            bound = msgspec.structs.replace(request.claim, answer_id=started.answer_id)
            self._unwritten[request.key] = bound
            while len(self._unwritten) > _MOST_UNWRITTEN:
                del self._unwritten[next(iter(self._unwritten))]
        except TimeoutError as exc:
            raise Overloaded(retry_after=1) from exc
        finally:
            with anyio.CancelScope(shield=True):
                await self._deferred.write("key", partial(self._end_claim, request, bound))
        return started

    async def _end_claim(self, request: KeyRequest, bound: KeyClaim | None) -> None:
        """Bind the key, or remove the claim if there is no answer; leave a key of another request as it is."""
        await self._replace(request, bound, keep_seconds=_KEEP_SECONDS)
        if bound is not None:
            self._unwritten.pop(request.key, None)

    async def _replace(self, request: KeyRequest, value: KeyClaim | None, *, keep_seconds: float) -> KeyClaim | None:
        """Replace the key's value if it is free or the request's own; otherwise return the other request's claim."""
        options = {"keep_ms": round(keep_seconds * 1000), "answers": answer_key(request.tenant, "")}
        args = [
            msgspec.msgpack.encode(options),
            msgspec.json.encode(request.claim),
            b"" if value is None else msgspec.json.encode(value),
        ]
        other = await self._breaker.call(lambda: self._script(keys=[request.key], args=args))
        return None if other is None else msgspec.json.decode(other, type=KeyClaim)


def _key(who: Principal, key: str) -> str:
    # Length first: no choice of sub and key can name another customer's.
    return f"{{{who.tenant}}}:idempotency:{len(who.sub)}:{who.sub}:{key}"
