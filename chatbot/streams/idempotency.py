"""Idempotency-Keys: a request that is sent again, to any replica, joins the answer that the first one started.

The semantics are those of draft-ietf-httpapi-idempotency-key-header. A key is claimed in Redis before any work is done
for the request. Another request with the key waits, and joins the answer once the key is bound to it. If the first
request is rejected, its claim is removed; if its process dies, the claim lapses. The waiting request then claims the
key itself.

A key belongs to (tenant, sub) and stays bound as long as the answer's log exists. It is free again if the answer ends
in a retryable error, or is cancelled because nobody reads it. While Redis is unavailable, keys are bound in this
process; they are bound in Redis afterwards.
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
_KEEP_SECONDS = 86_400.0  # of a bound key: longer than any log, since a key without its answer's log is free
_MOST_UNWRITTEN = 10_000  # keys that are bound in this process alone: beyond these, the oldest is dropped

Begin = Callable[[], Awaitable["StartedAnswer"]]  # starts an answer


class IdempotencySettings(BaseModel, frozen=True):
    """How long a claim on an Idempotency-Key lasts, and how long others wait for it."""

    lease: ClassVar[float] = 15.0  # seconds: after which the process of a request without an answer counts as dead
    patience: ClassVar[float] = 30.0  # seconds: how long a request waits for another's claim
    poll_every: ClassVar[float] = 0.05  # seconds: between two reads of that claim
    retry_for: ClassVar[float] = 1.5  # seconds: how long a claim is retried while Redis does not answer


@dataclass(frozen=True, slots=True)
class StartedAnswer:
    """An answer that runs or has run, and its caller's remaining limits if they are known."""

    answer_id: AnswerId
    limits: Limits | None
    joined: bool = False  # whether another request started it


class KeyClaim(msgspec.Struct, frozen=True, omit_defaults=True):
    """The stored value of a key: a random token of the request, the digest of its body, and the answer once started."""

    token: str
    digest: str
    answer_id: AnswerId | None = None


@dataclass(frozen=True, slots=True)
class KeyRequest:
    """A request with a key: its tenant, the key's name in Redis, its claim, and the function that starts its answer."""

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
        self._locks = WeakValueDictionary[str, anyio.Lock]()  # for each key: its requests are handled one at a time
        self._unwritten: dict[str, KeyClaim] = {}  # of the keys that are bound here and not yet in Redis
        self._script = redis.register_script((files("chatbot.streams") / "lua" / "claim.lua").read_text("utf-8"))

    async def begin_once(self, who: Principal, key: str | None, digest: str, begin: Begin) -> StartedAnswer:
        """Start an answer with `begin` and bind it to the key, or return the answer that the key is bound to.

        Raises:
            KeyReused: the key was used with a body of another digest.
            Overloaded: `begin` takes longer than half the lease, or another request's claim longer than the patience.
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
        """Join the answer that the key is bound to, or claim the key and start an answer."""
        try:
            claim = self._unwritten.get(request.key) or await self._claim(request)
        except StoreUnavailable:
            claim = request.claim  # Redis may have stored this claim, although the reply is missing
        if claim.digest != request.claim.digest:
            raise KeyReused
        if claim.answer_id is not None:
            return StartedAnswer(claim.answer_id, None, joined=True)
        return await self._begin(request)

    async def _claim(self, request: KeyRequest) -> KeyClaim:
        """Claim the key; return the claim that holds it now.

        This is the request's own claim, or another request's claim that is bound to an answer or has another digest.
        While another request with the same digest holds an unbound claim, try again.

        Raises:
            StoreUnavailable: Redis has been unavailable for `retry_for` seconds, and no other request is known to hold
                the key.
            Overloaded: another request holds the key for too long, or held it when Redis became unavailable.
        """
        deadline = time.monotonic() + self._settings.patience
        failing_since = math.inf
        held_by_other = False
        while (now := time.monotonic()) < deadline:
            try:
                other = await self._replace(request, request.claim, keep_seconds=self._settings.lease)
            except StoreUnavailable:
                failing_since = min(failing_since, now)
                # A single late command in a busy process is not an outage: another replica may hold the key.
                unavailable_for = max(time.monotonic() - failing_since, self._breaker.unavailable_for)
                if unavailable_for >= self._settings.retry_for:
                    if held_by_other:
                        break
                    raise
            else:
                if other is None:
                    return request.claim
                if other.digest != request.claim.digest or other.answer_id is not None:
                    return other
                failing_since = math.inf
                held_by_other = True
            await anyio.sleep(self._settings.poll_every)
        raise Overloaded(_STILL_CLAIMED, retry_after=1)

    async def _begin(self, request: KeyRequest) -> StartedAnswer:
        """Start the answer; bind the key to the answer, or remove the claim if no answer started."""
        bound_claim: KeyClaim | None = None
        try:
            # Another request may claim the key when the lease ends. The second half of the lease is for work that is
            # shielded from this deadline.
            with anyio.fail_after(self._settings.lease / 2):
                started = await request.begin()
            bound_claim = msgspec.structs.replace(request.claim, answer_id=started.answer_id)
            self._unwritten[request.key] = bound_claim
            if len(self._unwritten) > _MOST_UNWRITTEN:
                del self._unwritten[next(iter(self._unwritten))]
        except TimeoutError as exc:
            raise Overloaded(retry_after=1) from exc
        finally:
            with anyio.CancelScope(shield=True):
                await self._deferred.write("key", partial(self._end_claim, request, bound_claim))
        return started

    async def _end_claim(self, request: KeyRequest, bound_claim: KeyClaim | None) -> None:
        """Bind the key, or remove the claim if there is no answer; leave a key that another request holds."""
        await self._replace(request, bound_claim, keep_seconds=_KEEP_SECONDS)
        if bound_claim is not None:
            self._unwritten.pop(request.key, None)

    async def _replace(self, request: KeyRequest, value: KeyClaim | None, *, keep_seconds: float) -> KeyClaim | None:
        """Set the key's value (None: remove it) and return None; if another request holds the key, return its claim."""
        options = {"keep_ms": round(keep_seconds * 1000), "answers": answer_key(request.tenant, "")}
        args = [
            msgspec.msgpack.encode(options),
            msgspec.json.encode(request.claim),
            b"" if value is None else msgspec.json.encode(value),
        ]
        other = await self._breaker.call(lambda: self._script(keys=[request.key], args=args))
        return None if other is None else msgspec.json.decode(other, type=KeyClaim)


def _key(who: Principal, key: str) -> str:
    # The length of `sub` makes the parts unambiguous: no key that a client chooses becomes another customer's.
    return f"{{{who.tenant}}}:idempotency:{len(who.sub)}:{who.sub}:{key}"
