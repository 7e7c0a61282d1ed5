"""Errors of authentication."""


class TokenRefused(Exception):
    """The token is invalid; the message gives the reason and never contains the token."""


class KeysUnavailable(Exception):
    """The identity provider's keys cannot be fetched now, or the service keys cannot be read."""


class KeySetRefused(Exception):
    """The identity provider's key set cannot be used; cached keys remain in use."""
