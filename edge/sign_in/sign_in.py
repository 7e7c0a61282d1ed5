"""Sign-in at the provider, and the browser's session afterwards.

The state of a pending sign-in (state, nonce, PKCE verifier) is sealed into a cookie of the browser, so unauthenticated
clients write nothing to the store. Tokens stay in the session; the browser has only its id.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import anyio
import jwt
import msgspec
import structlog
from redis.asyncio import BlockingConnectionPool, Redis

from edge.sign_in.errors import SignInRefused, SignInUnavailable
from edge.sign_in.provider import GrantRefused, Provider, Tokens
from edge.sign_in.sessions import STORE_SECONDS, Seal, Session, Sessions
from edge.sign_in.settings import OidcSettings
from knowledge.bank import Banks
from knowledge.identity import Authenticator, KeysUnavailable, Principal, TokenRefused
from knowledge.tls import SYSTEM_TLS, TlsSettings

log = structlog.get_logger(__name__)

CALLBACK: Final = "/oidc/callback"
PENDING_SECONDS: Final = 600.0
"""The time limit of a sign-in at the provider."""
_AWAY_SECONDS = 5.0
"""The pause between one session's calls to a provider that is away."""
_POLL_SECONDS = 0.05
_LOGOUT_SECONDS = 300.0
"""The maximum age of a logout token; a token is accepted once."""
_LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"
_ERROR = re.compile(r"[a-z_]{1,40}")
_PLACE = re.compile(r"[\w/.~:=%-]{0,200}", re.ASCII)
_LONGEST_NAME = 100
_PENDING_SALT = "sign-in under way"


class PendingSignIn(msgspec.Struct, frozen=True, kw_only=True):
    """A pending sign-in of one browser, which the provider's reply must match."""

    origin: str
    state: str
    nonce: str
    verifier: str
    place: str
    ends: float


class SignIn:
    """Signs people in, and resolves sessions to principals."""

    def __init__(
        self,
        settings: OidcSettings,
        provider: Provider,
        redis: Redis,
        authenticator: Authenticator,
        banks: Banks,
        *,
        now: Callable[[], float],
    ) -> None:
        """`now` returns Unix seconds."""
        self._settings = settings
        self._provider = provider
        self._seal = Seal(settings.session_key.get_secret_value())
        realm = f"{settings.issuer} {settings.client_id}"
        self._sessions = Sessions(redis, self._seal, realm=realm, idle=settings.idle, now=now)
        self._authenticator = authenticator
        self._banks = banks
        self._now = now

    async def begin(self, origin: str, place: str) -> tuple[str, str]:
        """Return the provider's sign-in URL and the cookie of the pending sign-in; `place` is the page's fragment.

        Raises:
            SignInUnavailable: the provider is away.
        """
        pending = PendingSignIn(
            origin=origin,
            state=secrets.token_urlsafe(32),
            nonce=secrets.token_urlsafe(32),
            verifier=secrets.token_urlsafe(48),
            place=place if _PLACE.fullmatch(place) else "",
            ends=self._now() + PENDING_SECONDS,
        )
        url = await self._provider.authorization_url(
            state=pending.state, nonce=pending.nonce, verifier=pending.verifier, redirect_uri=origin + CALLBACK
        )
        return url, self._seal.encrypt(msgspec.json.encode(pending), salt=_PENDING_SALT).hex()

    async def complete(self, origin: str, cookie: str, reply: Mapping[str, str], *, former: str) -> tuple[str, str]:
        """End the `former` session, create a new one, and return its id and the page's fragment.

        Raises:
            SignInRefused: the reply does not match this browser's pending sign-in, or its tokens are not accepted.
            SignInUnavailable: the provider or the session store is away.
        """
        pending = self._read_pending(origin, cookie)
        await self._check_reply(pending, reply)
        try:
            tokens = await self._provider.exchange_code(
                reply["code"], verifier=pending.verifier, redirect_uri=origin + CALLBACK
            )
            session, owners = await self._verified_session(pending, tokens)
        except (GrantRefused, TokenRefused) as exc:
            raise SignInRefused(str(exc) or "the provider does not accept the code") from exc
        except KeysUnavailable as exc:
            raise SignInUnavailable(str(exc)) from exc
        if former:
            await self._sessions.end(former)
        return await self._sessions.create(session, owners), pending.place

    async def principal(self, session_id: str, host: str) -> Principal:
        """Return the principal of a session, and renew its access token shortly before it expires.

        Raises:
            TokenRefused: the session has ended or belongs to another host.
            SignInUnavailable: the session store is away, or the provider for longer than the grace period.
            KeysUnavailable: the provider's keys cannot be fetched.
        """
        session = await self.session(session_id, host)
        grace = 0.0
        if session.refresh_token is not None and session.renew_at <= self._now():
            session, grace = await self._with_valid_token(session_id, session), self._settings.grace
        principal = await self._authenticator.verify(session.access_token, grace=grace)
        if (principal.tenant, principal.sub) != (session.tenant, session.sub):
            await self._sessions.end(session_id)
            raise TokenRefused("the token belongs to another person: sign in again")
        return principal

    async def session(self, session_id: str, host: str) -> Session:
        """Return a session.

        Raises:
            TokenRefused: the session has ended or belongs to another host.
            SignInUnavailable: the session store is away.
        """
        session = await self._sessions.read(session_id)
        if session is None or session.host != host:
            raise TokenRefused("the session has ended: sign in again")
        return session

    def person_id(self, session: Session) -> str:
        """Return a pseudonymous id that is unique to the person, unlike a name."""
        person = msgspec.json.encode(["person", self._settings.issuer, session.tenant, session.sub])
        return hmac.new(self._settings.session_key.get_secret_value().encode(), person, hashlib.sha256).hexdigest()[:16]

    async def sign_out(self, session_id: str, origin: str, host: str) -> str:
        """End a session; return the provider's sign-out URL, or the page's URL if the provider has none.

        This also applies to a session that has already ended here: at the provider it may still be active and would
        sign in the next person at this browser.

        Raises:
            SignInUnavailable: the session store is away.
        """
        if not session_id:
            return f"{origin}/"
        id_token = None
        with suppress(TokenRefused):
            id_token = (await self.session(session_id, host)).id_token
            await self._sessions.end(session_id)
        try:
            await self._provider.metadata(fresh=True)
        except SignInUnavailable:
            return f"{origin}/"
        return self._provider.end_session_url(id_token, back_to=f"{origin}/") or f"{origin}/"

    async def process_logout_token(self, logout_token: str) -> None:
        """End the sessions that a logout token names (Back-Channel Logout 1.0).

        Raises:
            TokenRefused: the token is invalid, too old, or already processed.
            SignInUnavailable, KeysUnavailable: the session store or the provider's keys are unavailable.
        """
        claims = await self._claims(logout_token)
        events, sid, sub, token_id = (claims.get(name) for name in ("events", "sid", "sub", "jti"))
        if not (isinstance(events, dict) and isinstance(events.get(_LOGOUT_EVENT), dict)) or "nonce" in claims:
            raise TokenRefused("the token is not a logout token")
        if not (isinstance(token_id, str) and token_id and isinstance(sid or sub, str)):
            raise TokenRefused("the logout token has no id, or names nobody")
        oldest = self._now() - _LOGOUT_SECONDS
        if float(str(claims["iat"])) < oldest or await self._sessions.is_logout_processed(token_id):
            raise TokenRefused("the logout token is old, or was sent before")
        for owner in [f"sid:{sid}", f"only sub:{sub}"] if sid else [f"sub:{sub}"]:  # named in `_verified_session`
            await self._sessions.end_all(owner)
        await self._sessions.remember_logout(token_id, 2 * _LOGOUT_SECONDS)  # last, so that the provider can retry

    def _read_pending(self, origin: str, pending_cookie: str) -> PendingSignIn:
        try:
            content = self._seal.decrypt(bytes.fromhex(pending_cookie), salt=_PENDING_SALT)
        except ValueError:
            content = None
        pending = msgspec.json.decode(content, type=PendingSignIn) if content is not None else None
        if pending is None or pending.ends < self._now() or pending.origin != origin:
            raise SignInRefused("no pending sign-in for this browser: it expired or began elsewhere")
        return pending

    async def _check_reply(self, pending: PendingSignIn, reply: Mapping[str, str]) -> None:
        if not secrets.compare_digest(reply.get("state", "").encode(), pending.state.encode()):
            raise SignInRefused("the state of the reply does not match")
        needs_issuer = (await self._provider.metadata()).authorization_response_iss_parameter_supported
        if reply.get("iss", None if needs_issuer else self._settings.issuer) != self._settings.issuer:
            raise SignInRefused("the reply is from another issuer")
        if "code" not in reply:
            error = reply.get("error", "")
            raise SignInRefused(f"the provider gave no code: {error if _ERROR.fullmatch(error) else '?'}")

    async def _verified_session(self, pending: PendingSignIn, tokens: Tokens) -> tuple[Session, list[str]]:
        """Verify the tokens; return the session and the names by which the provider can end it."""
        claims = await self._claims(tokens.id_token or "")
        nonce = claims.get("nonce")
        if not (isinstance(nonce, str) and secrets.compare_digest(nonce.encode(), pending.nonce.encode())):
            raise TokenRefused("the nonce of the ID token does not match")
        if await self._is_access_token(tokens.id_token or ""):
            raise TokenRefused("the provider's ID tokens have the API's audience too: take it out of them")
        principal = await self._authenticator.verify(tokens.access_token)
        host = pending.origin.partition("://")[2]
        if not self._banks.may_sign_in(principal.tenant, host.partition(":")[0]):
            raise TokenRefused("the host belongs to another tenant")
        names = (claims.get(name) for name in ("name", "preferred_username", "email", "sub"))
        session = Session(
            host=host,
            tenant=principal.tenant,
            sub=principal.sub,
            name=next(name for name in names if isinstance(name, str) and name)[:_LONGEST_NAME],
            access_token=tokens.access_token,
            refresh_token=tokens.refresh_token,
            id_token=tokens.id_token or "",
            renew_at=self._renew_at(tokens.access_token),
            token_ends=_end_of(tokens.access_token),
            ends=self._now() + self._settings.longest,
        )
        sid, sub = claims.get("sid"), claims.get("sub")
        # Sessions whose ID token has no `sid` end with any provider session of this person.
        return session, [f"sub:{sub}", f"sid:{sid}" if sid else f"only sub:{sub}"]

    async def _claims(self, token: str) -> Mapping[str, Any]:
        """Verify a token that the provider issued to this client, and return its claims."""
        ours = self._settings.client_id
        claims = await self._authenticator.claims(token, issuer=self._settings.issuer, audience=ours)
        if claims.get("azp", ours if claims["aud"] in (ours, [ours]) else None) != ours:
            raise TokenRefused("the token is for another client")
        return claims

    async def _is_access_token(self, token: str) -> bool:
        """Return whether the API accepts a token; it must reject ID tokens, which sign-out exposes to the browser."""
        try:
            await self._authenticator.verify(token)
        except TokenRefused:
            return False
        return True

    async def _with_valid_token(self, session_id: str, session: Session) -> Session:
        """Return the session with a new access token, or with the old one while the provider is away.

        Only one request across all replicas calls the provider, because a rotating refresh token can be used once.
        """
        seconds = self._settings.timeout + 4 * STORE_SECONDS  # claim, read, write, and one spare
        if not await self._sessions.claim_renewal(session_id, seconds):
            return await self._await_other_renewal(session_id, session, within=seconds)
        with anyio.CancelScope(shield=True):  # the new tokens must be stored: the provider issues them once
            session = await self._renew(session_id, session.host)
        return session

    async def _renew(self, session_id: str, host: str) -> Session:
        """Renew the session's access token; the caller holds its claim, which is released here."""
        session = await self.session(session_id, host)  # another request may have renewed it before the claim
        if session.refresh_token is None or session.renew_at > self._now():
            await self._sessions.release_claim(session_id)
            return session
        try:
            tokens = await self._provider.refresh_tokens(session.refresh_token)
        except GrantRefused as exc:
            await self._sessions.end(session_id)
            raise TokenRefused("the session has ended at the provider: sign in again") from exc
        except SignInUnavailable:
            await self._sessions.release_claim(session_id, after=_AWAY_SECONDS)
            return self._require_grace(session)
        session = msgspec.structs.replace(
            session,
            access_token=tokens.access_token,
            refresh_token=tokens.refresh_token or session.refresh_token,
            renew_at=self._renew_at(tokens.access_token),
            token_ends=_end_of(tokens.access_token),
        )
        await self._sessions.replace(session_id, session)
        await self._sessions.release_claim(session_id)
        return session

    def _renew_at(self, access_token: str) -> float:
        """Return a token's renewal time: `renew_before` its expiry, but not before half of its remaining lifetime."""
        ends = _end_of(access_token)
        return ends - min(self._settings.renew_before, max(0.0, ends - self._now()) / 2)

    async def _await_other_renewal(self, session_id: str, session: Session, *, within: float) -> Session:
        """Return the session with its old token while that is valid; else wait for the request that renews it."""
        if session.token_ends > self._now():
            return session
        with anyio.move_on_after(within):
            while await self._sessions.is_being_renewed(session_id):  # noqa: ASYNC110  it may be another process
                await anyio.sleep(_POLL_SECONDS)
        return self._require_grace(await self.session(session_id, session.host))

    def _require_grace(self, session: Session) -> Session:
        if session.token_ends + self._settings.grace < self._now():
            raise SignInUnavailable("the identity provider is unavailable and the session's token has expired")
        return session


def _end_of(access_token: str) -> float:
    """Return a session token's expiry without verifying the token, which each use verifies."""
    try:
        return float(jwt.decode(access_token, options={"verify_signature": False})["exp"])
    except (jwt.PyJWTError, KeyError, TypeError, ValueError) as exc:
        raise TokenRefused("the provider's access token is not a JWT with `exp`") from exc


@asynccontextmanager
async def open_sign_in(
    settings: OidcSettings,
    redis_url: str,
    authenticator: Authenticator,
    banks: Banks,
    *,
    now: Callable[[], float],
    redis_tls: TlsSettings = SYSTEM_TLS,
) -> AsyncGenerator[SignIn]:
    """Open the sign-in with its own connections to Redis."""
    tls = await anyio.to_thread.run_sync(settings.tls.context)
    pool = BlockingConnectionPool.from_url(
        redis_url, max_connections=32, timeout=1, socket_connect_timeout=1, **redis_tls.redis_options(redis_url)
    )
    redis = Redis.from_pool(pool)
    try:
        yield SignIn(settings, Provider(settings, tls), redis, authenticator, banks, now=now)
    finally:
        await redis.aclose()
