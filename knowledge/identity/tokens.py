"""Verifies bearer tokens (JWT, RFC 7519): signature, issuer, audience and expiry.

Keys come from the identity provider's JWKS (RFC 7517; fetched with a deadline, cached, fetched again for an unknown key
id) or from one public key file. Only RS256 and ES256 are accepted, whatever the token's header names.

IdentityError
├── TokenRefused      missing, expired, or with a wrong signature, issuer, audience or claim
├── KeysUnavailable   the identity provider's keys cannot be fetched
└── KeySetRefused     what it publishes is no key set; keys that are known stay
"""

import json
import time
import unicodedata
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import aiohttp
import anyio
import jwt
import structlog
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from jwt.types import Options
from pydantic import BaseModel, Field, model_validator

from knowledge.access import EVERY_CUSTOMER
from knowledge.identity.principal import ROLES, Principal

log = structlog.get_logger(__name__)

ALGORITHMS = ("RS256", "ES256")
LONGEST_SUBJECT = 200
LONGEST_TENANT = 100
"""Characters: what the SQL tables hold."""
LONGEST_NAME = 100
MOST_NAMES = 200
"""Characters of a role or a group, and how many a token may have of each: every search and audit row carries them."""
_MOST_KEY_SET_BYTES = 1024 * 1024
_MOST_KEYS = 100
_FIRST_KEYS_PAUSE = 1.0
"""Seconds between two fetches while no key is known."""
_OPTIONS: Options = {
    "require": ["exp", "iat", "iss", "aud", "sub"],
    # By the machine's clock, which may be hours off: `_require_time` has another.
    "verify_exp": False,
    "verify_iat": False,
    "verify_nbf": False,
}


class IdentityError(Exception):
    """A token cannot be accepted."""


class TokenRefused(IdentityError):
    """The token is invalid; the message says why and never repeats it."""


class KeysUnavailable(IdentityError):
    """The identity provider's keys cannot be fetched now."""


class KeySetRefused(IdentityError):
    """What the identity provider publishes is no key set."""


class AuthSettings(BaseModel, frozen=True):
    """The accepted issuer, with either `jwks_url` or `public_key_file` as the source of its keys; times in seconds."""

    issuer: str = Field(description="who signs the accepted tokens (`iss`)")
    audience: str = Field("bank-chatbot", description="for whom they must be (`aud`)")
    jwks_url: str | None = Field(None, description="where the issuer publishes its keys; this or the key file")
    public_key_file: Path | None = Field(None, description="the issuer's public key, a file in PEM format")
    leeway: float = Field(60.0, description="seconds: how far the issuer's clock may be from ours")
    jwks_timeout: float = Field(3.0, description="seconds: the deadline of fetching the keys")
    jwks_keep: float = Field(3600.0, description="seconds: after which the keys are fetched anew")
    jwks_ask_again: float = Field(30.0, description="seconds: at least between two fetches for a key that is unknown")
    jwks_most_age: float = Field(
        86400.0,
        description="seconds: when keys are no longer believed, where the provider is away or answers nonsense",
    )
    longest_lifetime: float = Field(86400.0, description="seconds: the most between a token's `iat` and its `exp`")

    @model_validator(mode="after")
    def _one_source_of_keys(self) -> "AuthSettings":
        if (self.jwks_url is None) == (self.public_key_file is None):
            raise ValueError("set AUTH__JWKS_URL or AUTH__PUBLIC_KEY_FILE (one of them): whose tokens are accepted?")
        return self


class Keys(Protocol):
    """A source of public keys."""

    async def key(self, key_id: str | None) -> jwt.PyJWK:
        """Return the key.

        Raises:
            TokenRefused: there is no such key.
            KeysUnavailable: the keys cannot be fetched.
        """
        ...


class KeyFile:
    """One public key (PEM) for all tokens: the local key of `make run`."""

    def __init__(self, pem: bytes) -> None:
        public = load_pem_public_key(pem)
        if isinstance(public, EllipticCurvePublicKey):
            self._key = jwt.PyJWK(ECAlgorithm.to_jwk(public, as_dict=True), "ES256")
        elif isinstance(public, RSAPublicKey):
            self._key = jwt.PyJWK(RSAAlgorithm.to_jwk(public, as_dict=True), "RS256")
        else:
            raise TypeError("AUTH__PUBLIC_KEY_FILE must hold an RSA or a P-256 public key")

    async def key(self, key_id: str | None) -> jwt.PyJWK:  # noqa: ARG002 - one key, whatever its id
        return self._key


class Jwks:
    """An identity provider's cached key set.

    It is fetched again when it is old, or for an unknown key id: by one caller at a time, at most every
    `jwks_ask_again` seconds, whatever tokens come. Keys older than `jwks_most_age` are none: one that was revoked must
    not sign for ever.
    """

    def __init__(
        self, http: aiohttp.ClientSession, settings: AuthSettings, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._http = http
        self._settings = settings
        self._clock = clock
        self._keys: Mapping[str | None, jwt.PyJWK] = {}
        self._fetched_at = float("-inf")
        self._asked_at = float("-inf")
        self._fetching = anyio.Lock()

    async def key(self, key_id: str | None) -> jwt.PyJWK:
        if self._should_fetch(key_id):
            async with self._fetching:
                if self._should_fetch(key_id):  # unless the caller before has fetched
                    await self._fetch()
        if self._age() > self._settings.jwks_most_age:
            raise KeysUnavailable("the identity provider's keys cannot be fetched")
        if key_id not in self._keys:
            raise TokenRefused("the token is signed with a key that its issuer does not publish")
        return self._keys[key_id]

    def _age(self) -> float:
        return self._clock() - self._fetched_at

    def _should_fetch(self, key_id: str | None) -> bool:
        is_wanted = key_id not in self._keys or self._age() > self._settings.jwks_keep
        # Without any key every customer waits, so a provider that is back is noticed soon.
        pause = self._settings.jwks_ask_again if self._keys else _FIRST_KEYS_PAUSE
        return is_wanted and self._clock() - self._asked_at > pause

    async def _fetch(self) -> None:
        """Fetch the key set; where that fails, the present keys stay until they are too old."""
        self._asked_at = self._clock()
        url = str(self._settings.jwks_url)
        timeout = aiohttp.ClientTimeout(total=self._settings.jwks_timeout)
        try:
            async with self._http.get(url, timeout=timeout, raise_for_status=True) as response:
                keys = key_set(await read_at_most(response, _MOST_KEY_SET_BYTES))
        except (aiohttp.ClientError, TimeoutError, KeySetRefused) as exc:
            log.warning("key_set_not_fetched", error=f"{type(exc).__name__}: {exc}"[:200])
            return
        self._keys = keys
        self._fetched_at = self._asked_at = self._clock()


async def read_at_most(response: aiohttp.ClientResponse, most_bytes: int) -> bytes:
    """Return the body of a reply.

    Raises:
        KeySetRefused: it is longer.
    """
    body = b""
    async for chunk in response.content.iter_chunked(65536):
        body += chunk
        if len(body) > most_bytes:
            raise KeySetRefused("the key set is too long")
    return body


def key_set(body: bytes) -> dict[str | None, jwt.PyJWK]:
    """Return the usable keys of a JWKS (RFC 7517) by their id; keys of other kinds, or broken ones, are passed over.

    Raises:
        KeySetRefused: it is no key set, or has no usable key.
    """
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise KeySetRefused("the key set is no JSON") from exc
    published = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(published, list):
        raise KeySetRefused("the key set has no list of keys")
    keys: dict[str | None, jwt.PyJWK] = {}
    for entry in published[:_MOST_KEYS]:
        key = _usable(entry)
        if key is not None:
            keys[key.key_id] = key
    if not keys:
        raise KeySetRefused("the key set has no key that signs with RS256 or ES256")
    return keys


def _usable(entry: object) -> jwt.PyJWK | None:
    if not isinstance(entry, dict) or not isinstance(entry.get("kid"), str | None):
        return None
    try:
        key = jwt.PyJWK(entry)
    # Each malformed field raises something else, depending on what reads it.
    except (jwt.PyJWTError, UnsupportedAlgorithm, ValueError, TypeError, AttributeError, KeyError, OverflowError):
        return None
    return key if key.algorithm_name in ALGORITHMS else None


class Authenticator:
    """Turns a bearer token into a `Principal`."""

    def __init__(self, keys: Keys, settings: AuthSettings, *, now: Callable[[], float] = time.time) -> None:
        """`now` tells the time in Unix seconds that tokens are held against."""
        self._keys = keys
        self._settings = settings
        self._now = now

    async def verify(self, token: str) -> Principal:
        """Return the principal of a token.

        Raises:
            TokenRefused: the token is invalid.
            KeysUnavailable: the keys cannot be fetched.
        """
        try:
            header = jwt.get_unverified_header(token)
            if header.get("alg") not in ALGORITHMS:
                raise TokenRefused("the token's algorithm is not accepted")
            key = await self._keys.key(header.get("kid"))
            claims = jwt.decode(
                token,
                key,
                # The key's algorithm, never the header's: an RSA key must not be used as an HMAC secret.
                algorithms=[key.algorithm_name],
                audience=self._settings.audience,
                issuer=self._settings.issuer,
                options=_OPTIONS,
            )
            _require_time(claims, now=self._now(), leeway=self._settings.leeway)
            lifetime = float(claims["exp"]) - float(claims["iat"])
        except (jwt.PyJWTError, UnsupportedAlgorithm, ValueError, TypeError, OverflowError, RecursionError) as exc:
            raise TokenRefused("the token is not valid") from exc
        if not lifetime <= self._settings.longest_lifetime:  # not: longer; nothing compares with NaN
            raise TokenRefused("the token is good for longer than is accepted")
        return _principal(claims)


def _require_time(claims: Mapping[str, Any], *, now: float, leeway: float) -> None:
    """Refuse a token whose time is over, or has not come.

    Raises:
        TokenRefused: it is.
        ValueError, TypeError, OverflowError: a time is no number.
    """
    begins = max(int(claims["iat"]), int(claims.get("nbf", claims["iat"])))
    if int(claims["exp"]) <= now - leeway:
        raise TokenRefused("the token has expired: sign in again")
    if begins > now + leeway:
        raise TokenRefused("the token is not valid yet")


def _principal(claims: Mapping[str, object]) -> Principal:
    sub, tenant = claims.get("sub"), claims.get("tenant")
    if not (isinstance(sub, str) and sub and isinstance(tenant, str) and tenant and "{" not in tenant + sub):
        raise TokenRefused("the token names no subject or no tenant")
    if not (_is_name(sub, LONGEST_SUBJECT) and _is_name(tenant, LONGEST_TENANT)):
        raise TokenRefused("the token's subject or tenant is too long, or no text")
    roles = _names(claims.get("roles", [])) & ROLES
    groups = _names(claims.get("groups", [])) | _default_groups(roles)
    return Principal(tenant=tenant, sub=sub, roles=roles, groups=groups)


def _names(value: object) -> frozenset[str]:
    if not (isinstance(value, list) and all(isinstance(item, str) for item in value)):
        raise TokenRefused("the token's roles or groups are not lists of names")
    if len(value) > MOST_NAMES or not all(_is_name(item, LONGEST_NAME) for item in value):
        raise TokenRefused("the token's roles or groups are too many, too long, or no text")
    return frozenset(value)


def _is_name(text: str, longest: int) -> bool:
    """Tell whether a claim can be stored and sent: Redis, SQL, the index, logs and headers all get it."""
    # A lone surrogate is a character for JSON and Python, and for nothing that encodes it.
    return len(text) <= longest and not any(unicodedata.category(char) in {"Cc", "Cs"} for char in text)


def _default_groups(roles: frozenset[str]) -> frozenset[str]:
    return frozenset((EVERY_CUSTOMER,)) if roles else frozenset()


@asynccontextmanager
async def open_authenticator(settings: AuthSettings, *, now: Callable[[], float]) -> AsyncGenerator[Authenticator]:
    """Yield an authenticator with the source of keys that the settings name; `now` tells the time in Unix seconds."""
    if settings.public_key_file is not None:
        yield Authenticator(KeyFile(settings.public_key_file.read_bytes()), settings, now=now)
        return
    async with aiohttp.ClientSession() as http:
        yield Authenticator(Jwks(http, settings), settings, now=now)
