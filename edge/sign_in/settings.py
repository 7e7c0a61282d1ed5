"""The settings of sign-in: the provider, and the lifetime of sessions."""

from typing import ClassVar

from pydantic import BaseModel, Field, PositiveFloat, SecretStr

from knowledge.identity import AuthSettings
from knowledge.tls import TlsFiles, TlsSettings


class OidcSettings(BaseModel, frozen=True):
    """The OpenID Connect provider of a page, and the limits of its sessions."""

    issuer: str = Field(
        description=(
            "People sign in on the page at this provider, one of AUTH__ISSUER and AUTH__ISSUERS. Without "
            "`OIDC__…` they bring tokens."
        )
    )
    client_id: str = Field(min_length=1, description="The page is registered at the provider under this client id.")
    client_secret: SecretStr | None = Field(
        None,
        description="The page's client has this secret at the provider. Without it the client is public, with PKCE.",
    )
    scopes: str = Field(
        "openid",
        pattern=r"(^|.* )openid( .*|$)",
        description="The page requests these scopes, separated by spaces; `openid` must be among them.",
    )
    session_key: SecretStr = Field(
        min_length=32, description="Sessions in Redis are encrypted with this secret. All replicas need the same."
    )
    idle: PositiveFloat = Field(1800.0, description="seconds: An unused session ends after this time.")
    longest: PositiveFloat = Field(43200.0, description="seconds: Every session ends after this time.")
    renew_before: ClassVar[float] = 30.0  # seconds before an access token's expiry at which it is renewed
    grace: ClassVar[float] = 600.0  # seconds that an expired access token stays valid while the provider is away
    timeout: ClassVar[float] = 5.0  # seconds; the deadline of a call to the provider
    tls: TlsSettings = TlsSettings()

    def with_defaults(self, default: TlsFiles) -> "OidcSettings":
        """Return these settings with missing TLS files taken from `default`."""
        return self.model_copy(update={"tls": self.tls.with_defaults(default)})

    def check_issuer(self, auth: AuthSettings | None) -> None:
        """Check that the provider is an accepted issuer and that its ID tokens cannot pass as access tokens.

        Raises:
            ValueError: the provider is not an accepted issuer, or the API's audience is this client.
        """
        issuers = {each.issuer: each for each in auth.every_issuer()} if auth is not None else {}
        if self.issuer not in issuers:
            raise ValueError(
                f"OIDC__ISSUER={self.issuer} is not an accepted issuer (accepted: {', '.join(issuers) or 'none'}): "
                "add it to AUTH__ISSUER or AUTH__ISSUERS with its keys and claim mapping"
            )
        if issuers[self.issuer].audience == self.client_id:
            raise ValueError(
                f"OIDC__CLIENT_ID={self.client_id} equals the API's audience, so ID tokens would be accepted as access "
                "tokens: register a separate client for the page"
            )
