"""The client of the OpenID Connect provider (Authlib): metadata, authorization code with PKCE (S256), and refresh.

Its tokens are verified by `knowledge.identity`, like all tokens.
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
"""The maximum age of the metadata when a browser is redirected, so that no browser is sent to a provider that is down;
also the minimum time between two requests for metadata."""
_MOST_CODES = 8
"""The most concurrent code exchanges, because unauthenticated clients can send invalid codes."""
_TOKEN_REFUSALS = frozenset(
    {"invalid_grant", "interaction_required", "login_required", "consent_required", "access_denied"}
)
"""Errors after which the person must sign in again. Entra ID sends `interaction_required` when it requires a second
factor, Auth0 sends `access_denied` for a locked account."""
_CODE_REFUSALS = _TOKEN_REFUSALS | {"invalid_request"}
"""The browser sends the code, so a malformed code does not indicate a misconfigured client."""


class GrantRefused(Exception):
    """The provider rejects a code or a refresh token: it is used, expired or revoked."""


class Metadata(msgspec.Struct, frozen=True, kw_only=True):
    """The provider's metadata (OpenID Connect Discovery 1.0)."""

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
    """Calls the provider within a deadline; every call raises SignInUnavailable if it is unavailable."""

    def __init__(
        self, settings: OidcSettings, tls: ssl.SSLContext, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings = settings
        self._tls = tls
        self._clock = clock
        self._metadata: Metadata | None = None
        self._is_away = False
        self._metadata_read_at = float("-inf")
        self._metadata_lock = anyio.Lock()
        self._codes = anyio.CapacityLimiter(_MOST_CODES)

    async def metadata(self, *, fresh: bool = False) -> Metadata:
        """Return the metadata, at most `_FRESH_SECONDS` old if `fresh`; concurrent callers share one request."""
        if self._metadata is None or fresh:
            async with self._metadata_lock:
                if self._clock() - self._metadata_read_at > _FRESH_SECONDS:
                    await self._read_metadata()
        if self._metadata is None or (fresh and self._is_away):
            raise SignInUnavailable("the identity provider is unavailable")
        return self._metadata

    async def _read_metadata(self) -> None:
        """Read the metadata; if that fails or the issuer differs, keep the former metadata, and note the failure."""
        url = f"{self._settings.issuer.rstrip('/')}/.well-known/openid-configuration"

        async def read(client: AsyncOAuth2Client) -> Metadata:
            reply = await client.request("GET", url, withhold_token=True)
            return msgspec.json.decode(reply.raise_for_status().content, type=Metadata)

        try:
            document = await self._ask(read)
        except SignInUnavailable:
            self._is_away, self._metadata_read_at = True, self._clock()
            return
        self._is_away, self._metadata_read_at = document.issuer != self._settings.issuer, self._clock()
        if self._is_away:
            log.error("identity_provider_issuer_mismatch", issuer=self._settings.issuer)
        else:
            self._metadata = document

    async def authorization_url(self, *, state: str, nonce: str, verifier: str, redirect_uri: str) -> str:
        """Return the URL of the provider's sign-in page."""
        metadata = await self.metadata(fresh=True)
        url, _ = self._client(redirect_uri).create_authorization_url(
            metadata.authorization_endpoint,
            state=state,
            code_verifier=verifier,
            nonce=nonce,
            scope=self._settings.scopes,
        )
        return str(url)

    async def exchange_code(self, code: str, *, verifier: str, redirect_uri: str) -> Tokens:
        """Exchange a code for tokens.

        Raises:
            GrantRefused: the code is not accepted.
        """

        async def exchange(client: AsyncOAuth2Client) -> Tokens:
            endpoint = (await self.metadata()).token_endpoint
            return _tokens(await client.fetch_token(endpoint, code=code, code_verifier=verifier))

        with anyio.move_on_after(self._settings.timeout) as waiting:
            await self._codes.acquire()
        if waiting.cancelled_caught:
            raise SignInUnavailable("too many sign-ins in progress; try again")
        try:
            return await self._ask(exchange, redirect_uri, refusals=_CODE_REFUSALS)
        finally:
            self._codes.release()

    async def refresh_tokens(self, refresh_token: str) -> Tokens:
        """Exchange a refresh token for new tokens, including the next refresh token if the provider rotates them.

        Raises:
            GrantRefused: the refresh token is not accepted.
        """

        async def renew(client: AsyncOAuth2Client) -> Tokens:
            endpoint = (await self.metadata()).token_endpoint  # shares the deadline
            return _tokens(await client.refresh_token(endpoint, refresh_token=refresh_token))

        return await self._ask(renew)

    def end_session_url(self, id_token: str | None, *, back_to: str) -> str | None:
        """Return the provider's sign-out URL (RP-Initiated Logout 1.0); None if the provider has none."""
        endpoint = self._metadata.end_session_endpoint if self._metadata is not None else None
        if endpoint is None:
            return None
        hint = {} if id_token is None else {"id_token_hint": id_token}
        query = urlencode({**hint, "client_id": self._settings.client_id, "post_logout_redirect_uri": back_to})
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{query}"

    def _client(self, redirect_uri: str | None = None) -> AsyncOAuth2Client:
        """Return a single-use client, because Authlib's client keeps the last tokens."""
        client_secret = self._settings.client_secret
        # The chart sets an empty secret for a public client.
        secret = client_secret.get_secret_value() if client_secret is not None else ""
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
        refusals: frozenset[str] = _TOKEN_REFUSALS,
    ) -> T:
        """Run `ask` and translate its errors; the OAuth errors in `refusals` concern only the grant."""
        try:
            with anyio.fail_after(self._settings.timeout):
                async with self._client(redirect_uri) as client:
                    return await ask(client)
        except OAuthError as exc:
            if str(exc.error) in refusals:
                raise GrantRefused from exc
            # A changed secret or a removed client must not end anyone's session.
            log.error("identity_provider_rejected_client", error=str(exc.error)[:100])  # noqa: TRY400  the error code suffices
            raise SignInUnavailable("the identity provider does not accept this client") from exc
        except (httpx2.HTTPError, TimeoutError, OSError, ValueError, msgspec.DecodeError) as exc:
            log.warning("identity_provider_unavailable", error=type(exc).__name__)
            raise SignInUnavailable("the identity provider is unavailable") from exc


def _basic(
    client: Any, _method: str, uri: str, headers: MutableMapping[str, str], body: str
) -> tuple[str, MutableMapping[str, str], str]:
    """Add the client's credentials as in RFC 6749, 2.3.1; Authlib's own method escapes neither `:` nor `+`."""
    credentials = f"{quote_plus(client.client_id)}:{quote_plus(client.client_secret)}"
    headers["Authorization"] = f"Basic {base64.b64encode(credentials.encode()).decode()}"
    return uri, headers, body


def _tokens(reply: Any) -> Tokens:
    return msgspec.convert(dict(reply), Tokens)
