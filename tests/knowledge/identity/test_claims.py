"""What an issuer's tokens say is read where its settings say, and gives no role but those that they name."""

from collections.abc import Mapping
from typing import Any

import pytest
from pydantic import ValidationError

from knowledge.access import EVERY_CUSTOMER
from knowledge.identity.errors import TokenRefused
from knowledge.identity.issuers import AuthSettings
from knowledge.identity.principal import Principal
from knowledge.identity.tokens import Authenticator, KeyFile
from tests.identity_providers import APPROVERS_GROUP, ENTRA, KEYCLOAK, OKTA, OKTA_ROLES, STAFF_GROUP, IdentityProvider

KEYCLOAK_MAP: dict[str, Any] = {
    "audience": "bank-chatbot",
    "tenant": "hanbit",
    "roles_claim": "realm_access.roles",
    "role_map": {"chat-customer": ["customer"], "chat-staff": ["staff"]},
}
ENTRA_MAP: dict[str, Any] = {
    "audience": ENTRA.claims["aud"],
    "tenant_claim": "tid",
    "subject_claim": "oid",
    "role_map": {STAFF_GROUP: ["staff"], APPROVERS_GROUP: ["staff", "approver"]},
}
OKTA_MAP: dict[str, Any] = {
    "audience": "api://bank-chatbot",
    "tenant": "hanbit",
    "subject_claim": "uid",
    "roles_claim": [OKTA_ROLES],
    "role_map": {"Chat Approvers": ["staff", "approver"]},
}


def settings(provider: IdentityProvider, **more: Any) -> AuthSettings:
    return AuthSettings(issuer=provider.issuer, jwks_url="http://127.0.0.1/unused", **more)


async def verified(provider: IdentityProvider, auth: AuthSettings, **changed: object) -> Principal:
    authenticator = Authenticator({provider.issuer: KeyFile(provider.pem())}, auth)
    return await authenticator.verify(provider.token(**changed))


@pytest.mark.anyio
async def test_keycloak_s_realm_roles_are_mapped() -> None:
    lee = await verified(KEYCLOAK, settings(KEYCLOAK, **KEYCLOAK_MAP))
    assert (lee.tenant, lee.sub) == ("hanbit", KEYCLOAK.claims["sub"])
    assert lee.roles == {"customer"}
    assert lee.groups == {"/private-banking", EVERY_CUSTOMER}


@pytest.mark.anyio
async def test_entra_groups_are_mapped_by_object_id() -> None:
    kim = await verified(ENTRA, settings(ENTRA, **ENTRA_MAP))
    assert (kim.tenant, kim.sub) == (ENTRA.claims["tid"], ENTRA.claims["oid"])
    assert kim.roles == {"staff"}
    both = await verified(ENTRA, settings(ENTRA, **ENTRA_MAP), groups=[STAFF_GROUP, APPROVERS_GROUP])
    assert both.roles == {"staff", "approver"}


@pytest.mark.anyio
async def test_okta_claims_may_have_urls_as_names() -> None:
    park = await verified(OKTA, settings(OKTA, **OKTA_MAP))
    assert (park.tenant, park.sub) == ("hanbit", OKTA.claims["uid"])
    assert park.roles == {"staff", "approver"}
    assert park.groups == {"Everyone", "Seoul branch", EVERY_CUSTOMER}


@pytest.mark.anyio
@pytest.mark.parametrize("audience", ["account", "api://another", ["web-banking", "account"], [], "", None])
@pytest.mark.parametrize(("provider", "mapped"), [(KEYCLOAK, KEYCLOAK_MAP), (ENTRA, ENTRA_MAP), (OKTA, OKTA_MAP)])
async def test_a_foreign_audience_is_refused(
    provider: IdentityProvider, mapped: Mapping[str, Any], audience: object
) -> None:
    with pytest.raises(TokenRefused):
        await verified(provider, settings(provider, **mapped), aud=audience)


@pytest.mark.anyio
async def test_role_names_missing_in_the_map_give_nothing() -> None:
    auth = settings(OKTA, **OKTA_MAP)
    nobody = await verified(OKTA, auth, **{OKTA_ROLES: ["admin", "platform", "staff", "chat approvers"]})
    assert nobody.roles == frozenset()
    assert EVERY_CUSTOMER not in nobody.groups


@pytest.mark.anyio
async def test_an_issuer_gives_only_its_allowed_roles() -> None:
    allowed = await verified(
        OKTA, settings(OKTA, audience="api://bank-chatbot", tenant="t", roles=["staff"]), roles=["staff", "platform"]
    )
    assert allowed.roles == {"staff"}


@pytest.mark.anyio
async def test_a_subject_needs_no_claim_named_sub_where_another_is_set() -> None:
    assert (await verified(OKTA, settings(OKTA, **OKTA_MAP), sub=None)).sub == OKTA.claims["uid"]
    with pytest.raises(TokenRefused, match="names no subject"):
        await verified(OKTA, settings(OKTA, **OKTA_MAP), uid=None)


@pytest.mark.anyio
async def test_no_token_names_a_subject_of_a_service_key() -> None:
    for subject in ("service:0123456789abcdef", "service:"):
        with pytest.raises(TokenRefused, match="service keys"):
            await verified(OKTA, settings(OKTA, **OKTA_MAP), uid=subject)
    with pytest.raises(ValidationError, match="as service keys do"):
        settings(OKTA, **OKTA_MAP | {"subject_prefix": "service:of-okta:"})


MANY = [f"group-{n}" for n in range(10_000)]


@pytest.mark.anyio
@pytest.mark.parametrize(
    "changed",
    [
        {"realm_access": {"roles": 7}},
        {"realm_access": {"roles": "chat-customer\ud800"}},
        {"realm_access": {"roles": {"chat-customer": True}}},
        {"realm_access": {"roles": ["chat-customer", ["chat-staff"]]}},
        {"realm_access": "roles"},
        {"groups": MANY},
        {"groups": [{"value": "chat-staff"}]},
        {"sub": ["lee"]},
    ],
    ids=lambda changed: ascii(changed)[:60],
)
async def test_a_claim_of_another_shape_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(TokenRefused):
        await verified(KEYCLOAK, settings(KEYCLOAK, **KEYCLOAK_MAP), **changed)


@pytest.mark.anyio
async def test_a_single_name_may_be_text_and_is_not_split() -> None:
    auth = settings(KEYCLOAK, **KEYCLOAK_MAP)
    lee = await verified(KEYCLOAK, auth, realm_access={"roles": "chat-customer"}, groups="/private-banking")
    assert lee == await verified(KEYCLOAK, auth, realm_access={"roles": ["chat-customer"]})
    nobody = await verified(KEYCLOAK, auth, realm_access={"roles": "chat-customer chat-staff"}, groups=None)
    assert (nobody.roles, nobody.groups) == (frozenset(), frozenset())


FURTHER: dict[str, Any] = {
    "issuer": "https://staff.example", "jwks_url": "http://127.0.0.1/staff", "audience": "a", "roles": ["staff"],
    "subject_prefix": "staff:",
}  # fmt: skip


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"tenant": "t", "tenant_claim": "tid"}, "set AUTH__TENANT or AUTH__TENANT_CLAIM, not both"),
        ({"roles": ["staff"], "role_map": {"a": ["staff", "admin"]}}, "AUTH__ROLE_MAP gives admin, which AUTH__ROLES"),
        ({"role_map": {"a": ["boss"]}}, "role_map.a.*\n.*Input should be 'customer'"),
        ({"roles_claim": OKTA_ROLES}, r'write it as the list \["https://bank.example/roles"\]'),
        ({"roles_claim": "realm_access..roles"}, "names with dots between"),
        ({"groups_claim": ""}, "names with dots between"),
        ({"issuers": [FURTHER]}, "AUTH__ROLES must name the roles that AUTH__ISSUER may give"),
        ({"roles": ["staff"], "issuers": [FURTHER, FURTHER]}, "AUTH__ISSUERS has https://staff.example again"),
        ({"roles": ["staff"], "issuers": [FURTHER | {"issuer": KEYCLOAK.issuer}]}, "is set once"),
        ({"roles": ["staff"], "subject_prefix": "staff:eu:", "issuers": [FURTHER]},
         "AUTH__SUBJECT_PREFIX or one in AUTH__ISSUERS, staff:eu:, begins with another issuer's, staff:"),
        ({"roles": ["staff"], "issuers": [FURTHER, FURTHER | {"issuer": "https://b", "subject_prefix": "staff:b."}]},
         "staff:b., begins with another issuer's, staff:"),
        ({"subject_prefix": "staff"}, "subject_prefix.*\n.*should match pattern"),
        ({"roles": ["staff"], "issuers": [FURTHER | {"tenant": "t", "tenant_claim": "a"}]},
         "set tenant of https://staff.example in AUTH__ISSUERS or tenant_claim of https://staff.example"),
        ({"roles": ["staff"], "issuers": [FURTHER | {"public_key_file": "k"}]},
         "set jwks_url of https://staff.example in AUTH__ISSUERS or public_key_file"),
        ({"roles": ["staff"], "issuers": [FURTHER | {"role_map": {"a": ["customer"]}}]},
         "role_map of https://staff.example in AUTH__ISSUERS gives customer"),
        *(({"roles": ["staff"], "issuers": [{k: v for k, v in FURTHER.items() if k != key}]}, f"issuers.0.{key}")
          for key in ("audience", "roles", "subject_prefix")),
    ],
    ids=lambda value: str(value)[:60],
)  # fmt: skip
def test_settings_that_contradict_each_other_are_refused_by_name(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        settings(KEYCLOAK, **wrong)
