"""Idempotency-Keys: however often and wherever a request is sent, one answer is begun and the others join it.

A key is claimed in Redis before anything is done for it. Whoever finds it claimed waits until it stands for an answer,
or until the claim is given up (a refusal binds nothing) or has lapsed (its process died), and then claims it itself.
A key belongs to (tenant, sub) and stands for its answer as long as that answer's log lives. Redis away: no key binds.
"""

import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from uuid import uuid4

import anyio
import msgspec
from pydantic import BaseModel, PositiveFloat
from redis.asyncio import Redis

from chatbot.errors import KeyReused, Overloaded, StoreUnavailable
from chatbot.events import Limits
from chatbot.redis_client import RedisBreaker
from chatbot.streams.log import AnswerId, answer_key
from knowledge.identity import Principal

_STILL = "another request with this Idempotency-Key is still being accepted"
_KEPT = 86_400  # longer than any log; a key whose answer's log is gone is free


class IdempotencySettings(BaseModel, frozen=True):
    """Seconds: a claim holds, others wait for it, they look again; and a Redis that was slow is tried again."""

    lease: PositiveFloat = 15.0
    patience: PositiveFloat = 30.0
    look_every: PositiveFloat = 0.05
    insist: PositiveFloat = 1.5


@dataclass(frozen=True, slots=True)
class BegunAnswer:
    """An answer that runs or has run, and what its caller has left where that is known."""

    answer_id: AnswerId
    limits: Limits | None


class KeyClaim(msgspec.Struct, frozen=True, omit_defaults=True):
    """What stands under a key: who began on which body, and the answer once there is one."""

    token: str
    digest: str
    answer_id: AnswerId | None = None


class Here:
    """Those in this process who hold one key: one at a time asks Redis and begins, the others learn what it came to."""

    def __init__(self) -> None:
        self.count = 0
        self.turn = anyio.Lock()
        self.bound: KeyClaim | None = None


class IdempotencyKeys:
    """Begins one answer a key."""

    def __init__(self, redis: Redis, breaker: RedisBreaker, settings: IdempotencySettings) -> None:
        self._redis = redis
        self._breaker = breaker
        self._settings = settings
        self._here: dict[str, Here] = {}
        folder = files("chatbot.streams") / "lua"
        self._claim = redis.register_script((folder / "claim.lua").read_text("utf-8"))
        self._end = redis.register_script((folder / "claim_end.lua").read_text("utf-8"))

    async def begin_once(
        self, who: Principal, key: str | None, digest: str, begin: Callable[[], Awaitable[BegunAnswer]]
    ) -> BegunAnswer:
        """Return what `begin` returns, or the answer that the key has begun.

        Raises:
            KeyReused: it was used with a body of another digest.
            Overloaded: beginning takes longer than the lease, or than anybody should wait.
        """
        if key is None:
            return await begin()
        name = _name(who, key)
        here = self._here.setdefault(name, Here())
        here.count += 1
        try:
            return await self._in_turn(who, key, KeyClaim(uuid4().hex, digest), begin, here)
        finally:
            here.count -= 1
            if not here.count:
                del self._here[name]

    async def _in_turn(
        self, who: Principal, key: str, mine: KeyClaim, begin: Callable[[], Awaitable[BegunAnswer]], here: Here
    ) -> BegunAnswer:
        try:
            with anyio.fail_after(self._settings.patience):
                await here.turn.acquire()
        except TimeoutError as exc:
            raise Overloaded(_STILL, retry_after=1) from exc
        try:
            found, insist = here.bound, self._settings.insist
            try:
                found = found or await self._claimed(who, key, mine)
            except StoreUnavailable:
                # The claim may stand all the same, its reply only late: what becomes of it is said once.
                found, insist = mine, 0
            if found.digest != mine.digest:
                raise KeyReused
            if found.answer_id is not None:
                return BegunAnswer(found.answer_id, None)
            begun = await self._begin(who, key, mine, begin, insist=insist)
            here.bound = msgspec.structs.replace(mine, answer_id=begun.answer_id)
            return begun
        finally:
            here.turn.release()

    async def _claimed(self, who: Principal, key: str, mine: KeyClaim) -> KeyClaim:
        """Return `mine` once it stands, or the claim that has become an answer.

        Raises:
            StoreUnavailable: Redis cannot be asked, so nobody is known to have begun.
            Overloaded: somebody has, and it takes too long, or Redis went away meanwhile.
        """
        deadline = time.monotonic() + self._settings.patience
        someone_began = False
        while time.monotonic() < deadline:
            try:
                found = await self._try(who, key, mine)
            except StoreUnavailable:
                if not someone_began:
                    raise
                deadline = min(deadline, time.monotonic() + self._settings.insist)
                await anyio.sleep(self._settings.look_every)
                continue
            someone_began = True
            if found.digest != mine.digest or found.answer_id is not None or found.token == mine.token:
                return found
            await anyio.sleep(self._settings.look_every)
        raise Overloaded(_STILL, retry_after=1)

    async def _try(self, who: Principal, key: str, mine: KeyClaim) -> KeyClaim:
        encoded = msgspec.json.encode(mine)
        lease, answers = round(self._settings.lease * 1000), answer_key(who.tenant, AnswerId(""))
        found = await self._breaker.call(lambda: self._claim(keys=[_name(who, key)], args=[encoded, lease, answers]))
        return mine if found is None else msgspec.json.decode(found, type=KeyClaim)

    async def _begin(
        self, who: Principal, key: str, mine: KeyClaim, begin: Callable[[], Awaitable[BegunAnswer]], *, insist: float
    ) -> BegunAnswer:
        bound: KeyClaim | None = None
        try:
            # A claim that lapsed may be somebody else's: half the lease is left for what cannot be interrupted.
            with anyio.fail_after(self._settings.lease / 2):
                begun = await begin()
            bound = msgspec.structs.replace(mine, answer_id=begun.answer_id)
        except TimeoutError as exc:
            raise Overloaded(retry_after=1) from exc
        finally:
            with anyio.CancelScope(shield=True):
                await self._replace(who, key, mine, bound, insist=insist)
        return begun

    async def _replace(
        self, who: Principal, key: str, mine: KeyClaim, bound: KeyClaim | None, *, insist: float
    ) -> None:
        """Put the answer in the claim's place, or nothing; a claim that stays lapses, and another would begin again."""
        deadline = time.monotonic() + insist
        replacement = b"" if bound is None else msgspec.json.encode(bound)
        arguments: list[bytes | int] = [msgspec.json.encode(mine), replacement, _KEPT]
        while True:
            with suppress(StoreUnavailable):
                await self._breaker.call(lambda: self._end(keys=[_name(who, key)], args=arguments))
                return
            if time.monotonic() >= deadline:
                return
            await anyio.sleep(self._settings.look_every)


def _name(who: Principal, key: str) -> str:
    # Length first: no choice of sub and key can name another customer's.
    return f"{{{who.tenant}}}:idempotency:{len(who.sub)}:{who.sub}:{key}"
