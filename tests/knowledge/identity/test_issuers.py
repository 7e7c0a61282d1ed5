"""Of several issuers each judges its own tokens: no other's keys, audience, map or roles count."""

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from knowledge.access import EVERY_CUSTOMER
from knowledge.identity.errors import KeysUnavailable, TokenRefused
from knowledge.identity.issuers import AuthSettings
from knowledge.identity.tokens import Authenticator, open_authenticator
from tests.identity_providers import KEYCLOAK, OKTA, OKTA_ROLES, IdentityProvider, Published, publishing

pytestmark = pytest.mark.anyio


def settings(urls: dict[str, str], **of_staff: Any) -> AuthSettings:
    """Return settings by which Keycloak signs customers in, and Okta staff."""
    staff: dict[str, Any] = {
        "issuer": OKTA.issuer,
        "audience": "api://bank-chatbot",
        "jwks_url": urls[OKTA.issuer],
        "subject_claim": "uid",
        "subject_prefix": "staff:",
        "tenant": "hanbit",
        "roles_claim": [OKTA_ROLES],
        "role_map": {"Chat Approvers": ["staff", "approver"]},
        "roles": ["staff", "approver"],
    }
    customers = {
        "issuer": KEYCLOAK.issuer,
        "jwks_url": urls[KEYCLOAK.issuer],
        "tenant": "hanbit",
        "roles_claim": "realm_access.roles",
        "role_map": {"chat-customer": ["customer"]},
        "roles": ["customer"],
    }
    return AuthSettings.model_validate(customers | {"issuers": [staff | of_staff]})


@asynccontextmanager
async def opened(**of_staff: Any) -> AsyncGenerator[tuple[Authenticator, Published]]:
    async with (
        publishing(KEYCLOAK, OKTA) as published,
        open_authenticator(settings(published.urls, **of_staff), now=time.time) as authenticator,
    ):
        yield authenticator, published


CONFUSED: dict[str, Callable[[], str]] = {
    "a customer's token in the name of staff's issuer": lambda: KEYCLOAK.token(iss=OKTA.issuer),
    "the same with staff's audience and claims": lambda: OKTA.signed(KEYCLOAK.key(), KEYCLOAK.key_id),
    "the same under staff's key id": lambda: OKTA.signed(KEYCLOAK.key(), OKTA.key_id),
    "staff's token in the name of the customers' issuer": lambda: OKTA.token(iss=KEYCLOAK.issuer),
    "the same with the customers' audience and claims": lambda: KEYCLOAK.signed(OKTA.key(), OKTA.key_id),
    "the same under the customers' key id": lambda: KEYCLOAK.signed(OKTA.key(), KEYCLOAK.key_id),
    "a customer's token for staff's audience": lambda: KEYCLOAK.token(aud="api://bank-chatbot"),
    "staff's token for the customers' audience": lambda: OKTA.token(aud="bank-chatbot"),
    "an issuer nobody knows": lambda: KEYCLOAK.token(iss="https://sso.bank.example/realms/other"),
    "an issuer that begins the same": lambda: KEYCLOAK.token(iss=f"{KEYCLOAK.issuer}/"),
    "an issuer in a list": lambda: KEYCLOAK.token(iss=[KEYCLOAK.issuer]),
    "two issuers": lambda: KEYCLOAK.token(iss=[OKTA.issuer, KEYCLOAK.issuer]),
    "an issuer that is an object": lambda: KEYCLOAK.token(iss={"iss": KEYCLOAK.issuer}),
    "no issuer": lambda: KEYCLOAK.token(iss=None),
}


@pytest.mark.parametrize("which", CONFUSED)
async def test_a_token_that_mixes_two_issuers_is_refused(which: str) -> None:
    async with opened() as (authenticator, _):
        with pytest.raises(TokenRefused):
            await authenticator.verify(CONFUSED[which]())


async def test_an_id_token_of_another_issuer_is_refused() -> None:
    async with opened() as (authenticator, _):
        token = OKTA.token(aud="portal")
        found = await authenticator.claims(token, issuer=OKTA.issuer, audience="portal")
        assert found["iss"] == OKTA.issuer
        with pytest.raises(TokenRefused, match="from another issuer"):
            await authenticator.claims(token, issuer=KEYCLOAK.issuer, audience="portal")


async def test_another_issuer_s_names_are_not_in_a_map() -> None:
    async with opened() as (authenticator, _):
        claimed: dict[str, object] = {OKTA_ROLES: ["Chat Approvers"], "groups": ["Chat Approvers"], "uid": "park"}
        customer = await authenticator.verify(KEYCLOAK.token(**claimed))
        staff = await authenticator.verify(
            OKTA.token(**{"realm_access": {"roles": ["chat-customer"]}, OKTA_ROLES: ["chat-customer", "customer"]})
        )
    assert customer.roles == {"customer"}
    assert staff.roles == set()


@pytest.mark.parametrize("role", ["customer", "admin", "platform", "evals"])
async def test_an_issuer_without_a_map_gives_only_its_roles(role: str) -> None:
    async with opened(role_map=None) as (authenticator, _):
        staff = await authenticator.verify(OKTA.token(**{OKTA_ROLES: [role, "staff"]}))
    assert staff.roles == {"staff"}


async def test_people_of_two_issuers_with_one_name_are_two_people() -> None:
    async with opened() as (authenticator, _):
        customer = await authenticator.verify(KEYCLOAK.token(sub="1001"))
        staff = await authenticator.verify(OKTA.token(uid="1001"))
        assert (customer.tenant, staff.tenant) == ("hanbit", "hanbit")
        assert (customer.sub, staff.sub) == ("1001", "staff:1001")
        with pytest.raises(TokenRefused, match="another issuer"):
            await authenticator.verify(KEYCLOAK.token(sub="staff:1001"))


async def test_groups_of_two_issuers_with_one_name_are_two_groups() -> None:
    async with opened() as (authenticator, _):
        staff = await authenticator.verify(OKTA.token(groups=["hr", EVERY_CUSTOMER]))
        customer = await authenticator.verify(KEYCLOAK.token(groups=["hr", "staff:hr"]))
    assert staff.groups == {"staff:hr", f"staff:{EVERY_CUSTOMER}", EVERY_CUSTOMER}
    assert customer.groups == {"hr", EVERY_CUSTOMER}  # and no more of staff's, whatever their group is called


async def test_an_unavailable_provider_blocks_only_its_own_users() -> None:
    async with opened() as (authenticator, published):
        published.away.add(OKTA.issuer)
        with pytest.raises(KeysUnavailable):
            await authenticator.verify(OKTA.token())
        assert (await authenticator.verify(KEYCLOAK.token())).roles == {"customer"}
        assert published.fetched == [OKTA.issuer, KEYCLOAK.issuer]


async def test_an_unknown_issuer_causes_no_fetch() -> None:
    stranger = IdentityProvider(issuer="https://stranger.example", key_id="k", claims=KEYCLOAK.claims)
    async with opened() as (authenticator, published):
        for token in (stranger.token(), replace(stranger, key_id=OKTA.key_id).token()):
            with pytest.raises(TokenRefused, match="issuer is not accepted"):
                await authenticator.verify(token)
        assert published.fetched == []
