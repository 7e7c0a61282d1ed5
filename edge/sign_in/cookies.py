"""The cookies of a sign-in: their names, and which calls may be made with them."""

import re
from typing import Final

from fastapi import Request, Response

from edge.sign_in.errors import CrossSite

_LOOPBACK: Final = re.compile(r"(127\.0\.0\.1|localhost|\[::1\]):[0-9]{1,5}")
_SAFE: Final = frozenset({"GET", "HEAD"})


def host_of(request: Request) -> str:
    """Return the host that the browser has asked, with its port where it is no usual one."""
    return request.headers.get("host", "").lower()


def origin_of(request: Request) -> str:
    """Return the page's origin: https, whatever a proxy speaks with us, but for plain HTTP on this machine."""
    host = host_of(request)
    is_plain = request.scope["scheme"] == "http" and _LOOPBACK.fullmatch(host)
    return f"http{'' if is_plain else 's'}://{host}"


def cookie(request: Request, name: str) -> str:
    """Return the value of one of our cookies, empty where the browser sends none.

    Its name is compared byte by byte. Starlette takes more off a name than browsers do, so that a neighbour's
    `\\xa0__Host-session` with a Domain, which Chromium takes, would be ours.
    """
    ours = f"{_named(request, name)}="
    sent = (each.strip(" \t") for header in request.headers.getlist("cookie") for each in header.split(";"))
    return next((each.removeprefix(ours) for each in sent if each.startswith(ours)), "")


def set_cookie(request: Request, response: Response, name: str, value: str, *, seconds: int | None = None) -> None:
    """Give the browser a cookie that no script reads, for as long as it runs, or for `seconds`."""
    response.set_cookie(
        _named(request, name), value, max_age=seconds, secure=_is_secure(request), httponly=True, samesite="lax"
    )


def refuse_cross_site(request: Request) -> None:
    """Refuse a call that another site may have caused; one that changes something has to show that it is ours.

    Raises:
        CrossSite: it may be another site's.
    """
    origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site")
    is_ours = origin in (None, origin_of(request)) and site in (None, "same-origin", "none")
    if not is_ours or (request.method not in _SAFE and origin is None and site != "same-origin"):
        raise CrossSite("a call with the session's cookie must come from this host's own page")


def _is_secure(request: Request) -> bool:
    return origin_of(request).startswith("https:")


def _named(request: Request, name: str) -> str:
    """Return the whole name; without TLS a browser takes no `__Host-`, and a host's ports share their cookies."""
    return f"__Host-{name}" if _is_secure(request) else f"{name}-{host_of(request).rpartition(':')[2]}"
