"""Authenticate a request by its bearer token or its session; a parameter of the type `TheCaller` is the principal."""

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
    """Return the principal of the request's token, or of its session if it has no token.

    Raises:
        Unauthenticated: the token or session is missing or not accepted.
        Forbidden: a request with a session is not from our own page.
        Unavailable: the identity provider or the store of sessions is unavailable.
    """
    has_credentials = False
    try:
        if sign_in is not None and is_by_session(request):
            has_credentials = True
            principal = await principal_of_session(request, sign_in)
        else:
            token = bearer_token(request.headers)
            has_credentials = True
            principal = await authenticator.verify(token)
    except TokenRefused as exc:
        if has_credentials:  # a request without credentials is not an attempt to sign in
            siem.record_refusal(str(exc))
        raise Unauthenticated(str(exc)) from exc
    except CrossSite as exc:
        raise Forbidden(str(exc)) from exc
    except (KeysUnavailable, SignInUnavailable) as exc:
        raise Unavailable(str(exc), retry_after=5) from exc
    request.state.principal = principal
    return principal


async def require_chat(principal: Annotated[Principal, Depends(authenticate)]) -> Principal:
    """Return the caller; raise `Forbidden` if none of their roles may chat."""
    if not principal.roles & {"customer", "staff", "service", "admin"}:
        raise Forbidden("this token carries no role that may chat")
    return principal


TheCaller = Annotated[Principal, Depends(require_chat)]


async def require_admin(principal: Annotated[Principal, Depends(authenticate)]) -> Principal:
    """Return the caller; raise `Forbidden` if they do not administer their tenant."""
    if "admin" not in principal.roles:
        raise Forbidden("this token does not carry the role admin")
    return principal


async def require_platform(principal: Annotated[Principal, Depends(authenticate)]) -> Principal:
    """Return the caller; raise `Forbidden` if they do not run the platform that all tenants share."""
    if "platform" not in principal.roles:
        raise Forbidden("this token does not carry the role platform")
    return principal


ThePlatform = Annotated[Principal, Depends(require_platform)]
"""An operator of the platform that all tenants share, who may stop and resume it."""
TheAdmin = Annotated[Principal, Depends(require_admin)]
"""An administrator of one tenant."""
