"""The OpenID Connect provider, by Authlib: its metadata, the authorization code with PKCE (S256), and refreshing.

The tokens that it gives are verified where every token is (`knowledge.identity`).
"""

import base64
import ssl
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeVar
from urllib.parse import quote_plus, urlencode

import anyio
import httpx2
import msgspec
import structlog
from authlib.integrations.httpx_client import AsyncOAuth2Client, OAuthError

from edge.sign_in.errors import SignInUnavailable
from edge.sign_in.settings import OidcSettings

T = TypeVar("T")
log = structlog.get_logger(__name__)

_FRESH_SECONDS = 1.0
"""So old may metadata be where somebody is sent to the provider: a browser should not find it away.

So often it is asked for them, there or away.
"""
_MOST_CODES = 8
"""Exchanged at a time: whoever asks for a sign-in may send codes that are none."""
_OF_TOKENS = frozenset({"invalid_grant", "interaction_required", "login_required", "consent_required", "access_denied"})
"""Entra ID says `interaction_required` where a second factor is asked for by now, Auth0 `access_denied` of who is
locked out: they have to sign in again, and nothing else helps."""
_OF_CODES = _OF_TOKENS | {"invalid_request"}
"""A code is what somebody's browser sends, so that a malformed one is no fault of the client."""


class GrantRefused(Exception):
    """The provider does not accept a code, or a refresh token: it was used, is over, or was revoked."""


class Metadata(msgspec.Struct, frozen=True, kw_only=True):
    """What the provider publishes of itself (OpenID Connect Discovery 1.0)."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    end_session_endpoint: str | None = None
    authorization_response_iss_parameter_supported: bool = False


class Tokens(msgspec.Struct, frozen=True, kw_only=True):
    """A reply of the token endpoint."""

    access_token: str
    id_token: str | None = None
    refresh_token: str | None = None


class Provider:
    """Asks the provider, within a deadline; every call raises SignInUnavailable where it is away."""

    def __init__(
        self, settings: OidcSettings, tls: ssl.SSLContext, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings = settings
        self._tls = tls
        self._clock = clock
        self._metadata: Metadata | None = None
        self._is_away = False
        self._asked_at = float("-inf")
        self._asking = anyio.Lock()
        self._codes = anyio.CapacityLimiter(_MOST_CODES)

    async def metadata(self, *, fresh: bool = False) -> Metadata:
        """Return the metadata, `fresh` as the provider gives it now; one caller asks for all."""
        if self._metadata is None or fresh:
            async with self._asking:
                if self._clock() - self._asked_at > _FRESH_SECONDS:
                    await self._read_metadata()
        if self._metadata is None or (fresh and self._is_away):
            raise SignInUnavailable("the identity provider cannot be asked")
        return self._metadata

    async def _read_metadata(self) -> None:
        url = f"{self._settings.issuer.rstrip('/')}/.well-known/openid-configuration"

        async def read(client: AsyncOAuth2Client) -> Metadata:
            reply = await client.request("GET", url, withhold_token=True)
            return msgspec.json.decode(reply.raise_for_status().content, type=Metadata)

        try:
            found = await self._ask(read)
        except SignInUnavailable:
            self._is_away, self._asked_at = True, self._clock()
            return
        self._is_away, self._asked_at = found.issuer != self._settings.issuer, self._clock()
        if self._is_away:
            log.error("identity_provider_issuer_mismatch", issuer=self._settings.issuer)
        else:
            self._metadata = found

    async def authorization_url(self, *, state: str, nonce: str, verifier: str, redirect_uri: str) -> str:
        """Return where somebody signs in."""
        metadata = await self.metadata(fresh=True)
        url, _ = self._client(redirect_uri).create_authorization_url(
            metadata.authorization_endpoint,
            state=state,
            code_verifier=verifier,
            nonce=nonce,
            scope=self._settings.scopes,
        )
        return str(url)

    async def tokens_for(self, code: str, *, verifier: str, redirect_uri: str) -> Tokens:
        """Return the tokens for a code.

        Raises:
            GrantRefused: the code is not accepted.
        """

        async def exchange(client: AsyncOAuth2Client) -> Tokens:
            endpoint = (await self.metadata()).token_endpoint
            return _tokens(await client.fetch_token(endpoint, code=code, code_verifier=verifier))

        with anyio.move_on_after(self._settings.timeout) as waiting:
            await self._codes.acquire()
        if waiting.cancelled_caught:
            raise SignInUnavailable("too many sign in at once")
        try:
            return await self._ask(exchange, redirect_uri, refusals=_OF_CODES)
        finally:
            self._codes.release()

    async def renewed(self, refresh_token: str) -> Tokens:
        """Return new tokens, with the refresh token to use next.

        Raises:
            GrantRefused: the refresh token is not accepted.
        """

        async def renew(client: AsyncOAuth2Client) -> Tokens:
            endpoint = (await self.metadata()).token_endpoint  # within the one deadline
            return _tokens(await client.refresh_token(endpoint, refresh_token=refresh_token))

        return await self._ask(renew)

    def end_session_url(self, id_token: str | None, *, back_to: str) -> str | None:
        """Return where to sign out at the provider (RP-Initiated Logout 1.0); None where it offers none."""
        endpoint = self._metadata.end_session_endpoint if self._metadata is not None else None
        if endpoint is None:
            return None
        hint = {} if id_token is None else {"id_token_hint": id_token}
        query = urlencode({**hint, "client_id": self._settings.client_id, "post_logout_redirect_uri": back_to})
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{query}"

    def _client(self, redirect_uri: str | None = None) -> AsyncOAuth2Client:
        """Return a client of one use: Authlib's keeps the tokens that it got last."""
        given = self._settings.client_secret
        secret = given.get_secret_value() if given is not None else ""  # the chart gives a public client an empty one
        return AsyncOAuth2Client(
            client_id=self._settings.client_id,
            client_secret=secret or None,
            token_endpoint_auth_method=_basic if secret else "none",
            redirect_uri=redirect_uri,
            code_challenge_method="S256",
            verify=self._tls,
            timeout=self._settings.timeout,
            trust_env=False,
        )

    async def _ask(
        self,
        ask: Callable[[AsyncOAuth2Client], Awaitable[T]],
        redirect_uri: str | None = None,
        *,
        refusals: frozenset[str] = _OF_TOKENS,
    ) -> T:
        """Return what `ask` returns, and translate what goes wrong; `refusals` are errors of the grant alone."""
        try:
            with anyio.fail_after(self._settings.timeout):
                async with self._client(redirect_uri) as client:
                    return await ask(client)
        except OAuthError as exc:
            if str(exc.error) in refusals:
                raise GrantRefused from exc
            # A secret that was changed, a client that was removed: nobody's session ends of that.
            log.error("identity_provider_rejected_client", error=str(exc.error)[:100])  # noqa: TRY400  the code says it all
            raise SignInUnavailable("the identity provider does not accept this client") from exc
        except (httpx2.HTTPError, TimeoutError, OSError, ValueError, msgspec.DecodeError) as exc:
            log.warning("identity_provider_unavailable", error=type(exc).__name__)
            raise SignInUnavailable("the identity provider cannot be asked") from exc


def _basic(
    client: Any, _method: str, uri: str, headers: MutableMapping[str, str], body: str
) -> tuple[str, MutableMapping[str, str], str]:
    """Show the client's secret as RFC 6749, 2.3.1 says: Authlib's own way escapes neither a `:` nor a `+`."""
    shown = f"{quote_plus(client.client_id)}:{quote_plus(client.client_secret)}"
    headers["Authorization"] = f"Basic {base64.b64encode(shown.encode()).decode()}"
    return uri, headers, body


def _tokens(reply: Any) -> Tokens:
    return msgspec.convert(dict(reply), Tokens)
