"""The cookies of sign-in: their names, and the check that a call with them comes from our own page."""

import re
from typing import Final

from fastapi import Request, Response

from edge.sign_in.errors import CrossSite

_LOOPBACK: Final = re.compile(r"(127\.0\.0\.1|localhost|\[::1\]):[0-9]{1,5}")
_SAFE: Final = frozenset({"GET", "HEAD"})


def host_of(request: Request) -> str:
    """Return the request's host, with a port unless it is the scheme's default."""
    return request.headers.get("host", "").lower()


def origin_of(request: Request) -> str:
    """Return the page's origin: https even behind a plain-text proxy, except for plain HTTP on loopback."""
    host = host_of(request)
    is_plain = request.scope["scheme"] == "http" and _LOOPBACK.fullmatch(host)
    return f"http{'' if is_plain else 's'}://{host}"


def cookie(request: Request, name: str) -> str:
    """Return the value of one of our cookies, empty if the browser sends none.

    Names are compared byte by byte. Starlette strips more characters than browsers do, so it would accept a
    sibling domain's `\\xa0__Host-session`, which Chromium allows to be set with a Domain, as ours.
    """
    prefix = f"{_cookie_name(request, name)}="
    pairs = (pair.strip(" \t") for header in request.headers.getlist("cookie") for pair in header.split(";"))
    return next((pair.removeprefix(prefix) for pair in pairs if pair.startswith(prefix)), "")


def set_cookie(request: Request, response: Response, name: str, value: str, *, seconds: int | None = None) -> None:
    """Set an HttpOnly cookie that lasts for `seconds`, or for the browser's session without them."""
    response.set_cookie(
        _cookie_name(request, name), value, max_age=seconds, secure=_is_secure(request), httponly=True, samesite="lax"
    )


def refuse_cross_site(request: Request) -> None:
    """Reject a call that may come from another site; unsafe methods must prove that they come from our page.

    Raises:
        CrossSite: the call may come from another site.
    """
    origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site")
    is_ours = origin in (None, origin_of(request)) and site in (None, "same-origin", "none")
    if not is_ours or (request.method not in _SAFE and origin is None and site != "same-origin"):
        raise CrossSite("a call with the session's cookie must come from this host's own page")


def _is_secure(request: Request) -> bool:
    return origin_of(request).startswith("https:")


def _cookie_name(request: Request, name: str) -> str:
    """Return a cookie's full name; without TLS it has the port, since a host's ports share its cookies."""
    return f"__Host-{name}" if _is_secure(request) else f"{name}-{host_of(request).rpartition(':')[2]}"
