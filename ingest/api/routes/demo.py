"""The demo sign-in of `make run` for staff: it asks for no secret, so it exists only on loopback."""

from collections.abc import Callable
from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from knowledge.identity import Principal

SignToken = Callable[[Principal], tuple[str, int]]
"""Signs a token for somebody; returns it and when it ends (Unix seconds)."""


class DemoLogin(BaseModel):
    """Who to be: the one who uploads or the one who approves, two people, since nobody approves their own upload."""

    role: Literal["staff", "approver"]


class DemoToken(BaseModel):
    """A token of staff and when it ends (Unix seconds)."""

    token: str
    expires_at: int


def demo_router(sign: SignToken, *, tenant: str) -> APIRouter:
    """Return the route that gives a token of staff to every caller."""
    router = APIRouter(tags=["demo"])

    @router.post("/demo/login")
    async def login(who: DemoLogin) -> DemoToken:
        """Sign in as the demo bank's uploader or approver."""
        name = "demo uploader" if who.role == "staff" else "demo approver"
        token, expires_at = sign(Principal(tenant=tenant, sub=name, roles=frozenset({who.role}), groups=frozenset()))
        return DemoToken(token=token, expires_at=expires_at)

    return router
