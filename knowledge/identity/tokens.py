"""Verifies bearer tokens (JWT, RFC 7519): signature, issuer, audience and expiry.

A token is judged by the issuer that it names: by its keys, its audience and its map of claims, and by no other's. Keys
come from the identity provider's JWKS (RFC 7517; fetched with a deadline, cached, fetched again for an unknown key id)
or from one public key file. Only RS256 and ES256 are accepted, whatever the token's header names.
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
"""What every service key begins with, so that scanners of secrets find it; no JWT does."""
_MOST_KEY_SET_BYTES = 1024 * 1024
_MOST_KEYS = 100
_MALFORMED = (
    jwt.PyJWTError, UnsupportedAlgorithm, ArithmeticError, LookupError, ValueError, TypeError, AttributeError,
    RecursionError,
)  # fmt: skip
"""What reads a malformed key set raises one of these, depending on the field."""
_FIRST_KEYS_PAUSE = 1.0
"""Seconds between two fetches while no key is known."""
_WHY: Mapping[type[Exception], str] = {
    jwt.DecodeError: "the token is not a JWT",
    jwt.InvalidSignatureError: "the token is not signed with its issuer's key",
    jwt.InvalidAudienceError: "the token is for another audience",
    jwt.MissingRequiredClaimError: "the token lacks one of the claims exp, iat, iss and aud",
}
"""What tells an operator which part of the provider's set-up is wrong; of claims hears only who has a signed token."""
_OPTIONS: Options = {
    "require": ["exp", "iat", "iss", "aud"],
    # By the machine's clock, which may be hours off: `_require_time` has another.
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

    async def key(self, key_id: str | None, *, but: jwt.PyJWK | None = None) -> jwt.PyJWK:  # noqa: ARG002  one for all
        if but is not None:
            raise TokenRefused(_WHY[jwt.InvalidSignatureError])
        return self._key


class Jwks:
    """An identity provider's cached key set.

    It is fetched again when it is old, for an unknown key id, or where a key did not sign what names it (a provider may
    give a new key the old name): by one caller at a time, at most every `jwks_ask_again` seconds, whatever tokens come.
    Keys older than `jwks_most_age` are not used: a revoked one must not sign permanently.
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
        self._asked_at = float("-inf")
        self._fetching = anyio.Lock()

    async def key(self, key_id: str | None, *, but: jwt.PyJWK | None = None) -> jwt.PyJWK:
        """Return the key; after `but`, which did not sign, the one that has taken its name.

        Raises:
            TokenRefused: there is no such key.
            KeysUnavailable: the keys cannot be fetched.
        """
        # Who comes while they are fetched waits for them: this key may be among them.
        if self._should_fetch(key_id, but) or (self._fetching.locked() and self._found(key_id) is but):
            async with self._fetching:
                if self._should_fetch(key_id, but):  # unless the caller before has fetched
                    with anyio.CancelScope(shield=True):  # a caller who leaves takes nobody's keys away
                        await self._fetch()
        if self._age() > self._settings.jwks_most_age:
            raise KeysUnavailable("the identity provider's keys cannot be fetched")
        found = self._found(key_id)
        if found is None or found is but:
            raise TokenRefused("the token is signed with a key that its issuer does not publish")
        return found

    def _found(self, key_id: str | None) -> jwt.PyJWK | None:
        """Return the key of this id; where one alone is published, it or the token may have none (OIDC Core 10.1)."""
        if key_id not in self._keys and len(self._keys) == 1:
            only = next(iter(self._keys.values()))
            return only if key_id is None or only.key_id is None else None
        return self._keys.get(key_id)

    def _age(self) -> float:
        return self._clock() - self._fetched_at

    def _should_fetch(self, key_id: str | None, but: jwt.PyJWK | None) -> bool:
        is_wanted = self._found(key_id) is but or self._age() > self._settings.jwks_keep
        # Without any key every customer waits, so a provider that is back is noticed soon.
        pause = self._settings.jwks_ask_again if self._keys else _FIRST_KEYS_PAUSE
        return is_wanted and self._clock() - self._asked_at > pause

    async def _fetch(self) -> None:
        """Fetch the key set; where that fails, the present keys stay until they are too old."""
        self._asked_at = self._clock()
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
            self._asked_at = self._clock()  # who has waited for this, however long it took, does not ask again


Keys: TypeAlias = KeyFile | Jwks


async def read_at_most(response: aiohttp.ClientResponse, most_bytes: int) -> bytes:
    """Return the body of a reply.

    Raises:
        KeySetRefused: it is longer, or the reply leads to another address.
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
    """Return the usable keys of a JWKS (RFC 7517) by their id; keys of kinds that PyJWT does not know are ignored.

    Raises:
        KeySetRefused: it is not a key set, one of its keys is malformed, or it has no usable key.
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
        of_key: Callable[[str], Principal] | None = None,
    ) -> None:
        """`keys` has the keys of every issuer by its name; `now` tells the time in Unix seconds for tokens' times.

        `of_key` judges what begins as a service key does; without it that is a token like any other.
        """
        self._of_key = of_key
        self._keys = keys
        self._issuers = {issuer.issuer: issuer for issuer in settings.every_issuer()}
        self._settings = settings
        self._now = now

    async def verify(self, token: str, *, grace: float = 0.0) -> Principal:
        """Return the principal of a token, good for `grace` seconds after its end too, or of a service key.

        Raises:
            TokenRefused: the token is invalid.
            KeysUnavailable: the keys cannot be fetched.
        """
        if self._of_key is not None and token.startswith(SERVICE_KEY):
            return self._of_key(token)
        claims, issuer = await self._verified(token, grace=grace)
        return self._principal(claims, issuer)

    async def claims(self, token: str, *, issuer: str, audience: str) -> Claims:
        """Return the claims of another token than those of callers: an ID or a logout token for this audience.

        Raises:
            TokenRefused: the token is invalid, or another issuer's.
            KeysUnavailable: the keys cannot be fetched.
        """
        claims, found = await self._verified(token, audience=audience)
        if found.issuer != issuer:
            raise TokenRefused("the token is from another issuer")
        return claims

    async def _verified(
        self, token: str, *, audience: str | None = None, grace: float = 0.0
    ) -> tuple[dict[str, Any], Issuer]:
        try:
            unverified = jwt.decode_complete(token, options={"verify_signature": False})
            if unverified["header"].get("alg") not in ALGORITHMS:
                raise TokenRefused("the token's algorithm is not accepted")
            issuer = self._issuer(unverified["payload"].get("iss"))
            claims = await self._signed(token, unverified["header"].get("kid"), issuer, audience or issuer.audience)
            _require_time(claims, now=self._now(), leeway=self._settings.leeway, grace=grace)
            lifetime = float(claims["exp"]) - float(claims["iat"])
        except (jwt.PyJWTError, UnsupportedAlgorithm, ValueError, TypeError, OverflowError, RecursionError) as exc:
            raise TokenRefused(_WHY.get(type(exc), "the token is not valid")) from exc
        if not lifetime <= self._settings.longest_lifetime:  # not: longer; nothing compares with NaN
            raise TokenRefused("the token is valid for longer than AUTH__LONGEST_LIFETIME")
        return claims, issuer

    async def _signed(self, token: str, key_id: str | None, issuer: Issuer, audience: str) -> dict[str, Any]:
        """Return the claims of a token that its issuer has signed for an audience."""
        keys = self._keys[issuer.issuer]
        key = await keys.key(key_id)
        try:
            return _decoded(token, key, issuer, audience)
        except (jwt.InvalidSignatureError, jwt.InvalidAlgorithmError):
            return _decoded(token, await keys.key(key_id, but=key), issuer, audience)

    def _issuer(self, name: object) -> Issuer:
        """Return the issuer that a token names, before anything shows that it has signed it."""
        if not isinstance(name, str) or name not in self._issuers:
            raise TokenRefused("the token's issuer is not accepted")
        return self._issuers[name]

    def _principal(self, claims: Mapping[str, object], issuer: Issuer) -> Principal:
        prefixes = {other.subject_prefix for other in self._issuers.values()} - {"", issuer.subject_prefix}
        return principal_of(claims, issuer, tuple(prefixes))


def _decoded(token: str, key: jwt.PyJWK, issuer: Issuer, audience: str) -> dict[str, Any]:
    # The key's algorithm, never the header's: an RSA key must not be used as an HMAC secret.
    algorithms = [key.algorithm_name]
    return jwt.decode(token, key, algorithms=algorithms, audience=audience, issuer=issuer.issuer, options=_OPTIONS)


def _require_time(claims: Mapping[str, Any], *, now: float, leeway: float, grace: float) -> None:
    """Refuse a token whose time is over, `grace` seconds after it, or has not come.

    Raises:
        TokenRefused: it is.
        ValueError, TypeError, OverflowError: a time is not a number.
    """
    issued, ends = claims["iat"], claims["exp"]
    begins = claims.get("nbf", issued)
    if any(type(time) not in (int, float) for time in (issued, begins, ends)):  # RFC 7519, 2: a NumericDate
        raise ValueError("a time is not a number")
    begins = max(int(issued), int(begins))
    if int(ends) <= now - leeway - grace:
        raise TokenRefused("the token has expired: sign in again")
    if begins > now + leeway:
        raise TokenRefused("the token is not valid yet")


@asynccontextmanager
async def open_authenticator(
    settings: AuthSettings,
    *,
    now: Callable[[], float],
    of_key: Callable[[str], Principal] | None = None,
    tls: TlsSettings = SYSTEM_TLS,
) -> AsyncGenerator[Authenticator]:
    """Yield an authenticator with the keys of the issuers that are set; `now` tells the time in Unix seconds."""
    trusted = await anyio.to_thread.run_sync(tls.context)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusted)) as http:
        keys = {each.issuer: _keys_of(each, http, settings) for each in settings.every_issuer()}
        yield Authenticator(keys, settings, now=now, of_key=of_key)


def _keys_of(issuer: Issuer, http: aiohttp.ClientSession, settings: AuthSettings) -> Keys:
    if issuer.public_key_file is not None:
        return KeyFile(issuer.public_key_file.read_bytes())
    return Jwks(http, str(issuer.jwks_url), settings)
