"""Authentication: bearer tokens (JWT), and the service keys of machines, verified into a `Principal`."""

from knowledge.identity.errors import KeysUnavailable, TokenRefused
from knowledge.identity.issuers import AuthSettings
from knowledge.identity.principal import DEMO_TENANT, MACHINE, ROLES, Principal, Role
from knowledge.identity.tokens import Authenticator, KeyFile, open_authenticator

__all__ = [
    "DEMO_TENANT",
    "MACHINE",
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
