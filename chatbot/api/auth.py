"""The bearer token or the session of a request as a `Principal`: a parameter annotated with `TheCaller` is that."""

from typing import Annotated

from fastapi import Depends, Request

from chatbot.api.dependencies import TheAuthenticator, TheSiem, TheSignIn
from chatbot.errors import Forbidden, Unauthenticated, Unavailable
from edge import bearer_token
from edge.sign_in import CrossSite, SignInUnavailable, is_by_session, principal_of_session
from knowledge.identity import KeysUnavailable, Principal, TokenRefused


async def authenticate(
    request: Request, authenticator: TheAuthenticator, sign_in: TheSignIn, siem: TheSiem
) -> Principal:
    """Return the principal of the request's token, or of its session where it has no token.

    Raises:
        Unauthenticated: there is neither, or it is not accepted.
        Forbidden: the call with a session is not from our own page.
        Unavailable: the identity provider, or the store of sessions, is away.
    """
    is_tried = False
    try:
        if sign_in is not None and is_by_session(request):
            is_tried = True
            principal = await principal_of_session(request, sign_in)
        else:
            token = bearer_token(request.headers)
            is_tried = True
            principal = await authenticator.verify(token)
    except TokenRefused as exc:
        if is_tried:  # who sends nothing has tried nothing
            siem.refused(str(exc))
        raise Unauthenticated(str(exc)) from exc
    except CrossSite as exc:
        raise Forbidden(str(exc)) from exc
    except (KeysUnavailable, SignInUnavailable) as exc:
        raise Unavailable(str(exc), retry_after=5) from exc
    request.state.principal = principal
    return principal


async def require_chat(principal: Annotated[Principal, Depends(authenticate)]) -> Principal:
    """Return the caller, if one of their roles may chat.

    Raises:
        Forbidden: none may.
    """
    if not principal.roles & {"customer", "staff", "service", "admin"}:
        raise Forbidden("this token carries no role that may chat")
    return principal


TheCaller = Annotated[Principal, Depends(require_chat)]


async def require_admin(principal: Annotated[Principal, Depends(authenticate)]) -> Principal:
    """Return the caller, if they administer their tenant.

    Raises:
        Forbidden: they do not.
    """
    if "admin" not in principal.roles:
        raise Forbidden("this token does not carry the role admin")
    return principal


async def require_platform(principal: Annotated[Principal, Depends(authenticate)]) -> Principal:
    """Return the caller, if they run the platform that all tenants share.

    Raises:
        Forbidden: they do not, whatever they may do in their own tenant.
    """
    if "platform" not in principal.roles:
        raise Forbidden("this token does not carry the role platform")
    return principal


ThePlatform = Annotated[Principal, Depends(require_platform)]
"""Somebody who runs what all tenants share: stops and resumes it, and sees who did."""
TheAdmin = Annotated[Principal, Depends(require_admin)]
"""An administrator of one tenant."""
