"""Errors of authentication."""


class TokenRefused(Exception):
    """The token is invalid; the message says why and never repeats it."""


class KeysUnavailable(Exception):
    """The identity provider's keys cannot be fetched now, or the service keys cannot be read."""


class KeySetRefused(Exception):
    """The identity provider's key set cannot be used; present keys stay."""
