"""The staff demo sign-in of `make run`; it requires no secret, so it exists only on loopback."""

from collections.abc import Callable
from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from knowledge.identity import Principal

SignToken = Callable[[Principal], tuple[str, int]]
"""Sign a token for a principal; return it and its expiry (Unix seconds)."""


class DemoLogin(BaseModel):
    """The demo role: uploader or approver. They are two people, because an uploader can't approve their own upload."""

    role: Literal["staff", "approver"]


class DemoToken(BaseModel):
    """A staff token and its expiry (Unix seconds)."""

    token: str
    expires_at: int


def demo_router(sign: SignToken, *, tenant: str) -> APIRouter:
    """Return the route that issues a staff token to any caller."""
    router = APIRouter(tags=["demo"])

    @router.post("/demo/login")
    async def login(who: DemoLogin) -> DemoToken:
        """Sign in as the demo bank's uploader or approver."""
        name = "demo uploader" if who.role == "staff" else "demo approver"
        token, expires_at = sign(Principal(tenant=tenant, sub=name, roles=frozenset({who.role}), groups=frozenset()))
        return DemoToken(token=token, expires_at=expires_at)

    return router
