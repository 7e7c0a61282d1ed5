"""The demo login of `make run`, which needs no secret and therefore exists only on loopback."""

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, StringConstraints

from chatbot.api.local_identity import LocalSigner
from knowledge.identity import Principal


class DemoLogin(BaseModel):
    """The customer to sign in as."""

    name: Annotated[str, StringConstraints(pattern=r"^[\w.-]{1,40}$")] = "guest"


class DemoToken(BaseModel):
    """A customer's token and its expiry in Unix seconds."""

    token: str
    expires_at: int


def demo_router(signer: LocalSigner, *, tenant: str) -> APIRouter:
    """Return the route that issues a customer's token to any caller."""
    router = APIRouter(tags=["demo"])

    @router.post("/demo/login")
    async def login(who: DemoLogin) -> DemoToken:
        """Sign in as a customer of the demo bank."""
        customer = Principal(tenant=tenant, sub=who.name, roles=frozenset({"customer"}), groups=frozenset())
        token, expires_at = signer.token(customer)
        return DemoToken(token=token, expires_at=expires_at)

    return router
