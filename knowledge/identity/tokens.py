"""Verifies bearer tokens (JWT, RFC 7519): signature, issuer, audience and expiry.

Keys come from the identity provider's JWKS (RFC 7517; fetched with a deadline, cached, fetched again for an unknown key
id) or from one public key file. Only RS256 and ES256 are accepted, whatever the token's header names.

IdentityError
├── TokenRefused      missing, expired, or with a wrong signature, issuer, audience or claim
└── KeysUnavailable   the identity provider's keys cannot be fetched
"""

import time
import unicodedata
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

import aiohttp
import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from jwt.types import Options
from pydantic import BaseModel, model_validator

from knowledge.access import EVERY_CUSTOMER
from knowledge.identity.principal import ROLES, Principal

ALGORITHMS = ("RS256", "ES256")
LONGEST_SUBJECT = 200
LONGEST_TENANT = 100
"""Characters: what the SQL tables hold."""
LONGEST_NAME = 100
MOST_NAMES = 200
"""Characters of a role or a group, and how many a token may have of each: every search and audit row carries them."""
_MOST_KEY_SET_BYTES = 1024 * 1024
_OPTIONS: Options = {"require": ["exp", "iat", "iss", "aud", "sub"]}


class IdentityError(Exception):
    """A token cannot be accepted."""


class TokenRefused(IdentityError):
    """The token is invalid; the message says why and never repeats it."""


class KeysUnavailable(IdentityError):
    """The identity provider's keys cannot be fetched now."""


class AuthSettings(BaseModel, frozen=True):
    """The accepted issuer, with either `jwks_url` or `public_key_file` as the source of its keys; times in seconds."""

    issuer: str
    audience: str = "bank-chatbot"
    jwks_url: str | None = None
    public_key_file: Path | None = None
    leeway: float = 60.0
    jwks_timeout: float = 3.0
    jwks_keep: float = 3600.0
    jwks_ask_again: float = 30.0

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
    """An identity provider's cached key set; an unknown id fetches it again, at most every `jwks_ask_again` seconds."""

    def __init__(
        self, http: aiohttp.ClientSession, settings: AuthSettings, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._http = http
        self._settings = settings
        self._clock = clock
        self._keys: Mapping[str | None, jwt.PyJWK] = {}
        self._fetched_at = float("-inf")

    async def key(self, key_id: str | None) -> jwt.PyJWK:
        age = self._clock() - self._fetched_at
        if age > self._settings.jwks_keep or (key_id not in self._keys and age > self._settings.jwks_ask_again):
            await self._fetch()
        if key_id not in self._keys:
            raise TokenRefused("the token is signed with a key that its issuer does not publish")
        return self._keys[key_id]

    async def _fetch(self) -> None:
        url = str(self._settings.jwks_url)
        timeout = aiohttp.ClientTimeout(total=self._settings.jwks_timeout)
        try:
            async with self._http.get(url, timeout=timeout, raise_for_status=True) as response:
                published = jwt.PyJWKSet.from_dict(await response.json(content_type=None))
        except (aiohttp.ClientError, TimeoutError, jwt.PyJWKError, jwt.PyJWKSetError, ValueError) as exc:
            if self._keys:  # an outage of the provider must not invalidate every token
                self._fetched_at = self._clock()
                return
            raise KeysUnavailable("the identity provider's keys cannot be fetched") from exc
        self._keys = {key.key_id: key for key in published.keys if key.algorithm_name in ALGORITHMS}
        self._fetched_at = self._clock()


class Authenticator:
    """Turns a bearer token into a `Principal`."""

    def __init__(self, keys: Keys, settings: AuthSettings) -> None:
        self._keys = keys
        self._settings = settings

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
                leeway=self._settings.leeway,
                options=_OPTIONS,
            )
        except jwt.ExpiredSignatureError as exc:
            raise TokenRefused("the token has expired: sign in again") from exc
        except (jwt.PyJWTError, UnsupportedAlgorithm, ValueError, TypeError) as exc:
            raise TokenRefused("the token is not valid") from exc
        return _principal(claims)


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
async def open_authenticator(settings: AuthSettings) -> AsyncGenerator[Authenticator]:
    """Yield an authenticator with the source of keys that the settings name."""
    if settings.public_key_file is not None:
        yield Authenticator(KeyFile(settings.public_key_file.read_bytes()), settings)
        return
    async with aiohttp.ClientSession() as http:
        yield Authenticator(Jwks(http, settings), settings)
