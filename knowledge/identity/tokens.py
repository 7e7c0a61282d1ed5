"""Verifies bearer tokens (JWT, RFC 7519): signature, issuer, audience and expiry.

A token is verified with the keys, the audience and the claim settings of the issuer that it names. Keys come from the
identity provider's JWKS (RFC 7517; fetched with a deadline, cached, fetched again for an unknown key id) or from one
public key file. Only RS256 and ES256 are accepted, whatever the token's header names.
"""

import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, TypeAlias

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

from knowledge.identity.claims import Claims, principal_of
from knowledge.identity.errors import KeySetRefused, KeysUnavailable, TokenRefused
from knowledge.identity.issuers import AuthSettings, Issuer
from knowledge.identity.principal import Principal
from knowledge.tls import SYSTEM_TLS, TlsSettings

log = structlog.get_logger(__name__)

ALGORITHMS = ("RS256", "ES256")
SERVICE_KEY = "bck_"
"""The prefix of every service key, so that secret scanners find it; no JWT has it."""
_MOST_KEY_SET_BYTES = 1024 * 1024
_MOST_KEYS = 100
_MALFORMED = (
    jwt.PyJWTError, UnsupportedAlgorithm, ArithmeticError, LookupError, ValueError, TypeError, AttributeError,
    RecursionError,
)  # fmt: skip
"""The exceptions that a malformed key set raises, depending on the field."""
_FIRST_KEYS_PAUSE = 1.0  # seconds between two fetches while no key is known
_REASONS: Mapping[type[Exception], str] = {
    jwt.DecodeError: "the token is not a JWT",
    jwt.InvalidSignatureError: "the token is not signed with its issuer's key",
    jwt.InvalidAudienceError: "the token is for another audience",
    jwt.MissingRequiredClaimError: "the token lacks one of the claims exp, iat, iss and aud",
}
"""The reasons that help an operator to correct the provider's settings. The last two need a correctly signed token."""
_OPTIONS: Options = {
    "require": ["exp", "iat", "iss", "aud"],
    # PyJWT uses the machine's clock, which may be hours off; `_require_time` uses the database's.
    "verify_exp": False,
    "verify_iat": False,
    "verify_nbf": False,
}


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

    async def key(self, key_id: str | None, *, failed: jwt.PyJWK | None = None) -> jwt.PyJWK:  # noqa: ARG002  one for all
        """Return the key; raise TokenRefused if it has `failed` to verify the token."""
        if failed is not None:
            raise TokenRefused(_REASONS[jwt.InvalidSignatureError])
        return self._key


class Jwks:
    """An identity provider's cached key set.

    It is fetched again when it is old, when a key id is unknown, and when a key fails to verify a token that names it
    (a provider may publish a new key under an old id). One caller at a time fetches, at most every `jwks_pause` s.
    Keys older than `jwks_most_age` are not used, because they may have been revoked.
    """

    def __init__(
        self,
        http: aiohttp.ClientSession,
        url: str,
        settings: AuthSettings,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._http = http
        self._url = url
        self._settings = settings
        self._clock = clock
        self._keys: Mapping[str | None, jwt.PyJWK] = {}
        self._fetched_at = float("-inf")
        self._attempted_at = float("-inf")
        self._fetching = anyio.Lock()

    async def key(self, key_id: str | None, *, failed: jwt.PyJWK | None = None) -> jwt.PyJWK:
        """Return the key with this id; if `failed` could not verify a token, return the key that has replaced it.

        Raises:
            TokenRefused: there is no such key.
            KeysUnavailable: the keys cannot be fetched.
        """
        # A caller whose key is not cached waits for a fetch in progress, which may bring the key.
        if self._should_fetch(key_id, failed) or (self._lacks(key_id, failed) and self._fetching.locked()):
            async with self._fetching:
                if self._should_fetch(key_id, failed):  # unless the previous caller has fetched
                    with anyio.CancelScope(shield=True):  # other callers wait for this fetch too
                        await self._fetch()
        if self._age() > self._settings.jwks_most_age:
            raise KeysUnavailable("the identity provider's keys cannot be fetched")
        key = self._cached(key_id)
        if key is None or self._lacks(key_id, failed):
            raise TokenRefused("the token is signed with a key that its issuer does not publish")
        return key

    def _cached(self, key_id: str | None) -> jwt.PyJWK | None:
        """Return the cached key with this id; a sole key matches if it or the token has no id (OIDC Core 10.1)."""
        if key_id not in self._keys and len(self._keys) == 1:
            sole_key = next(iter(self._keys.values()))
            return sole_key if key_id is None or sole_key.key_id is None else None
        return self._keys.get(key_id)

    def _lacks(self, key_id: str | None, failed: jwt.PyJWK | None) -> bool:
        """Return whether no key with this id is cached, or only the failed key."""
        return self._cached(key_id) in (None, failed)

    def _age(self) -> float:
        return self._clock() - self._fetched_at

    def _should_fetch(self, key_id: str | None, failed: jwt.PyJWK | None) -> bool:
        # Without any key every customer waits, so try more often to notice the provider's return.
        pause = self._settings.jwks_pause if self._keys else _FIRST_KEYS_PAUSE
        may_fetch = self._clock() - self._attempted_at > pause
        return may_fetch and (self._lacks(key_id, failed) or self._age() > self._settings.jwks_refetch_after)

    async def _fetch(self) -> None:
        """Fetch the key set; if that fails, keep the cached keys."""
        self._attempted_at = self._clock()
        timeout = aiohttp.ClientTimeout(total=self._settings.jwks_timeout)
        try:
            get = self._http.get(self._url, timeout=timeout, raise_for_status=True, allow_redirects=False)
            async with get as response:
                keys = key_set(await read_at_most(response, _MOST_KEY_SET_BYTES))
        except (aiohttp.ClientError, TimeoutError, KeySetRefused) as exc:
            log.warning("key_set_fetch_failed", url=self._url, error=f"{type(exc).__name__}: {exc}"[:200])
        else:
            self._keys = keys
            self._fetched_at = self._clock()
        finally:
            self._attempted_at = self._clock()  # callers that waited for a slow fetch do not fetch again


Keys: TypeAlias = KeyFile | Jwks


async def read_at_most(response: aiohttp.ClientResponse, most_bytes: int) -> bytes:
    """Return the body of a reply.

    Raises:
        KeySetRefused: the body exceeds `most_bytes`, or the status is not 200 (a redirect, for instance).
    """
    if response.status != HTTPStatus.OK:
        raise KeySetRefused(f"status {response.status}: set the address of the key set itself")
    body = b""
    async for chunk in response.content.iter_chunked(65536):
        body += chunk
        if len(body) > most_bytes:
            raise KeySetRefused("the key set is too long")
    return body


def key_set(body: bytes) -> dict[str | None, jwt.PyJWK]:
    """Return the usable keys among the first 100 of a JWKS (RFC 7517) by id; types unknown to PyJWT are ignored.

    Raises:
        KeySetRefused: the body is not a key set, one of its keys is malformed, or none is usable.
    """
    try:
        published = jwt.PyJWKSet.from_json(body.decode()).keys[:_MOST_KEYS]
        keys = {
            key.key_id: key
            for key in published
            if key.algorithm_name in ALGORITHMS and key.public_key_use in (None, "sig")
        }
    except _MALFORMED as exc:
        raise KeySetRefused(f"the key set cannot be read ({type(exc).__name__})") from exc
    if not keys:
        raise KeySetRefused("the key set has no key that signs with RS256 or ES256")
    return keys


class Authenticator:
    """Turns a bearer token into a `Principal`."""

    def __init__(
        self,
        keys: Mapping[str, Keys],
        settings: AuthSettings,
        *,
        now: Callable[[], float] = time.time,
        principal_of_key: Callable[[str], Principal] | None = None,
    ) -> None:
        """`keys` has the keys of every issuer by its name; `now` returns Unix seconds.

        `principal_of_key` verifies service keys; without it they are refused, like any text that is not a JWT.
        """
        self._principal_of_key = principal_of_key
        self._keys = keys
        self._issuers = {issuer.issuer: issuer for issuer in settings.every_issuer()}
        self._settings = settings
        self._now = now

    async def verify(self, token: str, *, grace: float = 0.0) -> Principal:
        """Return the principal of a token, accepted until `grace` seconds after its expiry, or of a service key.

        Raises:
            TokenRefused: the token is invalid.
            KeysUnavailable: the keys cannot be fetched.
        """
        if self._principal_of_key is not None and token.startswith(SERVICE_KEY):
            return self._principal_of_key(token)
        claims, issuer = await self._verified_claims(token, grace=grace)
        prefixes = {other.subject_prefix for other in self._issuers.values()}
        return principal_of(claims, issuer, tuple(prefixes - {"", issuer.subject_prefix}))

    async def claims(self, token: str, *, issuer: str, audience: str) -> Claims:
        """Return the claims of an ID or logout token of this issuer, for this audience.

        Raises:
            TokenRefused: the token is invalid, or another issuer's.
            KeysUnavailable: the keys cannot be fetched.
        """
        claims, named_issuer = await self._verified_claims(token, audience=audience)
        if named_issuer.issuer != issuer:
            raise TokenRefused("the token is from another issuer")
        return claims

    async def _verified_claims(
        self, token: str, *, audience: str | None = None, grace: float = 0.0
    ) -> tuple[dict[str, Any], Issuer]:
        """Return the claims and the issuer of a valid token; the default `audience` is the issuer's."""
        try:
            unverified = jwt.decode_complete(token, options={"verify_signature": False})
            if unverified["header"].get("alg") not in ALGORITHMS:
                raise TokenRefused("the token's algorithm is not accepted")
            issuer = self._issuers.get(str(unverified["payload"].get("iss")))  # not verified yet
            if issuer is None:
                raise TokenRefused("the token's issuer is not accepted")
            claims = await self._signed_claims(
                token, unverified["header"].get("kid"), issuer, audience or issuer.audience
            )
            _require_time(claims, now=self._now(), leeway=self._settings.leeway, grace=grace)
            lifetime = float(claims["exp"]) - float(claims["iat"])
        except (jwt.PyJWTError, UnsupportedAlgorithm, ValueError, TypeError, OverflowError, RecursionError) as exc:
            raise TokenRefused(_REASONS.get(type(exc), "the token is not valid")) from exc
        if not lifetime <= self._settings.longest_lifetime:  # `>` would accept NaN
            raise TokenRefused("the token is valid for longer than AUTH__LONGEST_LIFETIME")
        return claims, issuer

    async def _signed_claims(self, token: str, key_id: str | None, issuer: Issuer, audience: str) -> dict[str, Any]:
        """Return the claims of a token that its issuer has signed for an audience."""
        keys = self._keys[issuer.issuer]
        key = await keys.key(key_id)
        try:
            return _decoded(token, key, issuer, audience)
        except (jwt.InvalidSignatureError, jwt.InvalidAlgorithmError):
            return _decoded(token, await keys.key(key_id, failed=key), issuer, audience)


def _decoded(token: str, key: jwt.PyJWK, issuer: Issuer, audience: str) -> dict[str, Any]:
    # The key's algorithm, never the header's: an RSA key must not be used as an HMAC secret.
    algorithms = [key.algorithm_name]
    return jwt.decode(token, key, algorithms=algorithms, audience=audience, issuer=issuer.issuer, options=_OPTIONS)


def _require_time(claims: Mapping[str, Any], *, now: float, leeway: float, grace: float) -> None:
    """Check that a token is valid at `now` (Unix seconds), with tolerances in seconds.

    `leeway` tolerates the difference of two clocks; `grace` prolongs the token's validity.

    Raises:
        TokenRefused: the token has expired or is not valid yet.
        ValueError, TypeError, OverflowError: a time is not a number.
    """
    issued_at, expires_at = claims["iat"], claims["exp"]
    not_before = claims.get("nbf", issued_at)
    if any(type(time) not in (int, float) for time in (issued_at, not_before, expires_at)):  # NumericDate, RFC 7519, 2
        raise ValueError("a time is not a number")
    if int(expires_at) <= now - leeway - grace:
        raise TokenRefused("the token has expired: sign in again")
    if max(int(issued_at), int(not_before)) > now + leeway:
        raise TokenRefused("the token is not valid yet")


@asynccontextmanager
async def open_authenticator(
    settings: AuthSettings,
    *,
    now: Callable[[], float],
    principal_of_key: Callable[[str], Principal] | None = None,
    tls: TlsSettings = SYSTEM_TLS,
) -> AsyncGenerator[Authenticator]:
    """Open the authenticator of the configured issuers; `now` returns Unix seconds."""
    context = await anyio.to_thread.run_sync(tls.context)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as http:
        keys = {issuer.issuer: _keys_of(issuer, http, settings) for issuer in settings.every_issuer()}
        yield Authenticator(keys, settings, now=now, principal_of_key=principal_of_key)


def _keys_of(issuer: Issuer, http: aiohttp.ClientSession, settings: AuthSettings) -> Keys:
    if issuer.public_key_file is not None:
        return KeyFile(issuer.public_key_file.read_bytes())
    return Jwks(http, str(issuer.jwks_url), settings)
