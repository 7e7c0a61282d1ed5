"""Authentication: bearer tokens (JWT) verified into a `Principal`."""

from knowledge.identity.errors import KeysUnavailable, TokenRefused
from knowledge.identity.issuers import AuthSettings
from knowledge.identity.principal import ROLES, Principal, Role
from knowledge.identity.tokens import Authenticator, KeyFile, open_authenticator

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
