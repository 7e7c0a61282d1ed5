"""Sign-in at the bank's OpenID Connect provider: sessions on the server, an opaque cookie in the browser.

A session's tokens are verified like bearer tokens and grant the same rights (docs/sign-in.md).
"""

from edge.sign_in.errors import CrossSite, SignInUnavailable
from edge.sign_in.routes import is_by_session, principal_of_session, sign_in_router
from edge.sign_in.settings import OidcSettings
from edge.sign_in.sign_in import SignIn, open_sign_in

__all__ = [
    "CrossSite",
    "OidcSettings",
    "SignIn",
    "SignInUnavailable",
    "is_by_session",
    "open_sign_in",
    "principal_of_session",
    "sign_in_router",
]
