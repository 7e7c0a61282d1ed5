"""Why nobody is signed in by a session.

SignInError
├── SignInRefused      what came back is not the end of this browser's sign-in, or not for here
├── CrossSite          a call with the session's cookie that is not from our own page
└── SignInUnavailable  the identity provider, or the store of sessions, cannot be asked
A session that is over, or was never there, is a `TokenRefused` as an unaccepted token is.
"""


class SignInError(Exception):
    """A session cannot be used or begun."""


class SignInRefused(SignInError):
    """The sign-in ends here; the message says why, for the log."""


class CrossSite(SignInError):
    """A call with a cookie that another site may have caused."""


class SignInUnavailable(SignInError):
    """A part that sessions need is away."""
