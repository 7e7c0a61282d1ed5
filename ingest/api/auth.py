"""Authentication of the staff API: route parameters of type `Staff` or `Approver` are the authenticated caller."""

from typing import Annotated

from fastapi import Depends, Request

from edge import bearer_token
from edge.sign_in import CrossSite, SignInUnavailable, is_by_session, principal_of_session
from ingest.api.dependencies import TheServices
from ingest.errors import Forbidden, Unauthenticated, Unavailable
from knowledge.identity import KeysUnavailable, Principal, TokenRefused


async def authenticate(request: Request, services: TheServices) -> Principal:
    """Return the caller by the request's token, or by its session if it has no token.

    Raises:
        Unauthenticated: the token or session is missing or not accepted.
        Forbidden: the call with a session is not from our own page.
        Unavailable: the identity provider or the session store is unavailable.
    """
    has_credentials = False
    try:
        if services.sign_in is not None and is_by_session(request):
            has_credentials = True
            return await principal_of_session(request, services.sign_in)
        token = bearer_token(request.headers)  # raises TokenRefused without one
        has_credentials = True
        if services.authenticator is None:
            raise Unavailable("no identity provider is set")
        return await services.authenticator.verify(token)
    except TokenRefused as exc:
        if has_credentials:  # a request without credentials is not a failed sign-in
            services.siem.record_refusal(str(exc))
        raise Unauthenticated(str(exc)) from exc
    except CrossSite as exc:
        raise Forbidden(str(exc)) from exc
    except (KeysUnavailable, SignInUnavailable) as exc:
        raise Unavailable(str(exc)) from exc


async def require_staff(principal: Annotated[Principal, Depends(authenticate)]) -> Principal:
    """Return the caller if they are staff; raise Forbidden otherwise."""
    if not principal.roles & {"staff", "approver", "admin"}:
        raise Forbidden("only staff work with documents")
    return principal


async def require_approver(principal: Annotated[Principal, Depends(authenticate)]) -> Principal:
    """Return the caller if they are an approver; raise Forbidden otherwise."""
    if not may_approve(principal):
        raise Forbidden("only an approver may decide about versions")
    return principal


def may_approve(principal: Principal) -> bool:
    """Return whether a principal may approve other people's uploads; a service key never may."""
    return bool(principal.roles & {"approver", "admin"}) and not principal.is_machine


Staff = Annotated[Principal, Depends(require_staff)]
Approver = Annotated[Principal, Depends(require_approver)]
