"""Errors of sign-in and sessions; an expired or unknown session raises `TokenRefused`, like an invalid token."""


class SignInRefused(Exception):
    """The provider's reply does not match this browser's sign-in, or its tokens are not accepted."""


class CrossSite(Exception):
    """The call has a session cookie, but may come from another site."""


class SignInUnavailable(Exception):
    """The identity provider or the session store is unavailable."""
