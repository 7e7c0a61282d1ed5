"""Why a caller is not known.

IdentityError
├── TokenRefused      missing, expired, or with a wrong signature, issuer, audience or claim
├── KeysUnavailable   the identity provider's keys cannot be fetched, or the service keys not read
└── KeySetRefused     what it publishes is not a key set; known keys stay
"""


class IdentityError(Exception):
    """A token cannot be accepted."""


class TokenRefused(IdentityError):
    """The token is invalid; the message says why and never repeats it."""


class KeysUnavailable(IdentityError):
    """The identity provider's keys cannot be fetched now, or the service keys cannot be read."""


class KeySetRefused(IdentityError):
    """What the identity provider publishes is not a key set."""
