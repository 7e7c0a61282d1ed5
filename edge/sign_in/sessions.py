"""Sessions in Redis, for all replicas: encrypted records under the hash of an id that only the browser has.

A record's encryption key is derived from the secret setting and from that id, so neither Redis nor the setting alone
reveals a token. For each subject and each provider session an index lists the keys of the sessions, so that a logout
token can end them. If Redis loses its data, people have to sign in again.
"""

import hashlib
import secrets
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

import anyio
import msgspec
import structlog
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from redis.asyncio import Redis
from redis.exceptions import RedisError

from edge.sign_in.errors import SignInUnavailable

T = TypeVar("T")
log = structlog.get_logger(__name__)

STORE_SECONDS = 2.0
"""The deadline of a Redis command."""
_NONCE_BYTES = 12
_RENEWING, _AWAY = b"renewing", b"away"  # the values of a claim: a renewal is running, or paused


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """A person's session at one host; times in Unix seconds."""

    host: str
    tenant: str
    sub: str
    name: str
    access_token: str
    refresh_token: str | None
    id_token: str
    renew_at: float
    token_ends: float
    ends: float


class Seal:
    """Encrypts (AES-256-GCM) with keys derived from one secret (HKDF-SHA256)."""

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()

    def encrypt(self, content: bytes, *, salt: str) -> bytes:
        """Encrypt the content; decryption needs `salt` as well as the secret."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + self._cipher(salt).encrypt(nonce, content, None)

    def decrypt(self, sealed: bytes, *, salt: str) -> bytes | None:
        """Decrypt the content; return None if the secret or `salt` differs or the data was changed."""
        try:
            return self._cipher(salt).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], None)
        except (InvalidTag, ValueError):
            return None

    def _cipher(self, salt: str) -> AESGCM:
        return AESGCM(HKDF(SHA256(), 32, salt=salt.encode(), info=b"bank-chatbot sign-in").derive(self._secret))


class Sessions:
    """The session store; `realm` separates the providers and clients that share one Redis.

    Every call raises SignInUnavailable if Redis is unavailable.
    """

    def __init__(self, redis: Redis, seal: Seal, *, realm: str, idle: float, now: Callable[[], float]) -> None:
        self._redis = redis
        self._seal = seal
        self._realm = realm
        self._idle = idle
        self._now = now

    async def create(self, session: Session, owners: Iterable[str]) -> str:
        """Store a session and return its id; `owners` are the names by which `end_all` finds it."""
        session_id = secrets.token_urlsafe(32)
        key = self._key("session", session_id)
        remaining_seconds = session.ends - self._now()
        commands = self._redis.pipeline(transaction=True)
        commands.set(key, self._seal_session(session_id, session), px=_ms(min(self._idle, remaining_seconds)))
        for name in owners:
            index = self._key("of", name)
            commands.zremrangebyscore(index, "-inf", self._now())
            commands.zadd(index, {key: session.ends})
            commands.pexpire(index, _ms(remaining_seconds))
        await _in_time(commands.execute())
        return session_id

    async def read(self, session_id: str) -> Session | None:
        """Return a session and restart its idle time; None if it has ended."""
        key = self._key("session", session_id)
        sealed = await _in_time(self._redis.getex(key, px=_ms(self._idle)))
        content = self._seal.decrypt(sealed, salt=session_id) if isinstance(sealed, bytes) else None
        session = msgspec.json.decode(content, type=Session) if content is not None else None
        return session if session is not None and session.ends > self._now() else None

    async def replace(self, session_id: str, session: Session) -> None:
        """Replace a session unless it has ended."""
        sealed = self._seal_session(session_id, session)
        await _in_time(self._redis.set(self._key("session", session_id), sealed, xx=True, keepttl=True))

    async def end(self, session_id: str) -> None:
        """End a session on every replica."""
        await _in_time(self._redis.delete(self._key("session", session_id)))

    async def end_all(self, owner: str) -> None:
        """End every session of a subject or of a provider session."""
        index = self._key("of", owner)
        if keys := await _in_time(self._redis.zrange(index, 0, -1)):
            commands = self._redis.pipeline(transaction=True)
            commands.delete(*keys)
            commands.zrem(index, *keys)
            await _in_time(commands.execute())

    async def claim_renewal(self, session_id: str, seconds: float) -> bool:
        """Claim the renewal of a session's token for `seconds`; return False if any replica holds the claim."""
        return bool(
            await _in_time(self._redis.set(self._key("renewing", session_id), _RENEWING, nx=True, px=_ms(seconds)))
        )

    async def release_claim(self, session_id: str, *, after: float = 0.0) -> None:
        """Release a claim now, or `after` these seconds, to pause calls to an unavailable provider."""
        claim = self._key("renewing", session_id)
        await _in_time(self._redis.set(claim, _AWAY, px=_ms(after)) if after else self._redis.delete(claim))

    async def is_being_renewed(self, session_id: str) -> bool:
        """Return whether a request is renewing the session's token now."""
        return bool(await _in_time(self._redis.get(self._key("renewing", session_id))) == _RENEWING)

    async def is_logout_processed(self, token_id: str) -> bool:
        """Return whether a logout token has already been processed."""
        return bool(await _in_time(self._redis.exists(self._key("logout", token_id))))

    async def remember_logout(self, token_id: str, seconds: float) -> None:
        """Remember a processed logout token for `seconds`."""
        await _in_time(self._redis.set(self._key("logout", token_id), b"", px=_ms(seconds)))

    def _seal_session(self, session_id: str, session: Session) -> bytes:
        return self._seal.encrypt(msgspec.json.encode(session), salt=session_id)

    def _key(self, kind: str, name: str) -> str:
        return f"oidc:{kind}:{hashlib.sha256(f'{self._realm} {name}'.encode()).hexdigest()}"


def _ms(seconds: float) -> int:
    return max(1, int(seconds * 1000))


async def _in_time(command: Awaitable[T]) -> T:
    """Await a Redis command, within `STORE_SECONDS`.

    Raises:
        SignInUnavailable: Redis is unavailable.
    """
    try:
        with anyio.fail_after(STORE_SECONDS):
            return await command
    except (RedisError, OSError, TimeoutError) as exc:
        log.warning("sessions_unavailable", error=type(exc).__name__)
        raise SignInUnavailable("the session store is unavailable") from exc
