"""Who calls the staff API: annotate a route's parameter with `Staff` or `Approver` and it is authenticated."""

from typing import Annotated

from fastapi import Depends, Request

from edge import bearer_token
from ingest.api.dependencies import TheServices
from ingest.errors import Forbidden, Unauthenticated, Unavailable
from knowledge.identity import KeysUnavailable, Principal, TokenRefused


async def authenticate(request: Request, services: TheServices) -> Principal:
    """Return who calls.

    Raises:
        Unauthenticated: no token, or one that is not accepted.
        Unavailable: the identity provider's keys cannot be had.
    """
    try:
        token = bearer_token(request.headers)
        if services.authenticator is None:
            raise Unavailable("no identity provider is set")
        return await services.authenticator.verify(token)
    except TokenRefused as exc:
        raise Unauthenticated(str(exc)) from exc
    except KeysUnavailable as exc:
        raise Unavailable(str(exc)) from exc


async def require_staff(principal: Annotated[Principal, Depends(authenticate)]) -> Principal:
    """Return who calls, if they work with documents.

    Raises:
        Forbidden: neither staff nor approver.
    """
    if not principal.roles & {"staff", "approver", "admin"}:
        raise Forbidden("only staff work with documents")
    return principal


async def require_approver(principal: Annotated[Principal, Depends(authenticate)]) -> Principal:
    """Return who calls, if they may approve documents.

    Raises:
        Forbidden: not an approver.
    """
    if not may_approve(principal):
        raise Forbidden("only approvers may approve a version")
    return principal


def may_approve(principal: Principal) -> bool:
    """Tell whether somebody may approve versions, of which others are the uploaders."""
    return bool(principal.roles & {"approver", "admin"})


Staff = Annotated[Principal, Depends(require_staff)]
Approver = Annotated[Principal, Depends(require_approver)]
