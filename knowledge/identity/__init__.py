"""Authentication: bearer tokens (JWT) verified into a `Principal`."""

from knowledge.identity.principal import ROLES, Principal, Role
from knowledge.identity.tokens import (
    Authenticator,
    AuthSettings,
    KeyFile,
    KeysUnavailable,
    TokenRefused,
    open_authenticator,
)

__all__ = [
    "ROLES",
    "AuthSettings",
    "Authenticator",
    "KeyFile",
    "KeysUnavailable",
    "Principal",
    "Role",
    "TokenRefused",
    "open_authenticator",
]
