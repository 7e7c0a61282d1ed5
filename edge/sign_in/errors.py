"""Errors of sign-in and sessions.

SignInError
├── SignInRefused      the provider's reply does not match this browser's sign-in, or its tokens are not accepted
├── CrossSite          a call with the session's cookie that is not from our own page
└── SignInUnavailable  the identity provider or the session store is unavailable
An expired or unknown session raises `TokenRefused`, like an invalid token.
"""


class SignInError(Exception):
    """A session cannot be used or created."""


class SignInRefused(SignInError):
    """The sign-in failed; the message, for the log, says why."""


class CrossSite(SignInError):
    """A call with a session cookie that may come from another site."""


class SignInUnavailable(SignInError):
    """The identity provider or the session store is unavailable."""
