"""The values of docs/identity.md for identity providers: rendered, read by both services, held against tokens."""

import json
import re
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from chatbot.settings import Settings as ChatSettings
from ingest.settings import Settings as StaffSettings
from knowledge.identity import Authenticator, AuthSettings, Principal, TokenRefused, open_authenticator
from tests.charts.rendering import NAME, ROOT, environment, pods, render
from tests.identity_providers import (
    APPROVERS_GROUP,
    ENTRA,
    KEYCLOAK,
    OKTA,
    OKTA_ROLES,
    STAFF_GROUP,
    IdentityProvider,
    publishing,
)

pytestmark = pytest.mark.anyio

BLOCK = re.compile(r"^```yaml\n# (values-[-a-z]+\.yaml)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
VALUES = dict(BLOCK.findall((ROOT / "docs/identity.md").read_text("utf-8")))
SETTINGS: dict[str, type[ChatSettings | StaffSettings]] = {"chatbot": ChatSettings, "ingest": StaffSettings}


def rendered(name: str, folder: Path) -> dict[str, dict[str, str]]:
    """Return the variables for the tokens that each API takes, by the page's values of this name."""
    file = folder / name
    file.write_text(VALUES[name], "utf-8")
    wanted = {f"Deployment/{NAME}-chatbot": "chatbot", f"Deployment/{NAME}-ingest": "ingest"}
    return {
        wanted[where]: {k: v for k, v in environment(pod["spec"]["containers"][0]).items() if k.startswith("AUTH__")}
        for where, pod in pods(render("values-prod", "-f", str(file)))
        if where in wanted
    }


def read(api: str, variables: dict[str, str], urls: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> AuthSettings:
    """Return the settings that an API reads from its variables, with the providers' keys at our addresses."""
    issuers = json.loads(variables.get("AUTH__ISSUERS", "[]"))
    ours = {
        "AUTH__JWKS_URL": urls[variables["AUTH__ISSUER"]],
        "AUTH__ISSUERS": json.dumps([issuer | {"jwks_url": urls[issuer["issuer"]]} for issuer in issuers]),
    }
    with monkeypatch.context() as patched:
        for name, value in (variables | ours | {"REDIS_URL": "redis://127.0.0.1", "AUDIT_KEY": "k" * 32}).items():
            patched.setenv(name, value)
        auth = SETTINGS[api]().auth
    assert auth is not None
    return auth


@asynccontextmanager
async def opened(name: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> AsyncGenerator[dict[str, Authenticator]]:
    """Open what verifies the tokens of each API."""
    async with publishing(KEYCLOAK, ENTRA, OKTA) as published, AsyncExitStack() as stack:
        yield {
            api: await stack.enter_async_context(
                open_authenticator(read(api, variables, published.urls, monkeypatch), now=time.time)
            )
            for api, variables in rendered(name, folder).items()
        }


SUBJECTS = {"values-keycloak.yaml": "sub", "values-entra.yaml": "oid", "values-okta.yaml": "uid"}
SHAPES: list[tuple[str, IdentityProvider, dict[str, object], set[str]]] = [
    ("values-keycloak.yaml", KEYCLOAK, {}, {"customer"}),
    ("values-keycloak.yaml", KEYCLOAK, {"realm_access": {"roles": ["chat-approver"]}}, {"staff", "approver"}),
    ("values-keycloak.yaml", KEYCLOAK, {"realm_access": {"roles": ["approver", "admin"]}}, set()),
    ("values-entra.yaml", ENTRA, {}, {"staff"}),
    ("values-entra.yaml", ENTRA, {"groups": [STAFF_GROUP, APPROVERS_GROUP]}, {"staff", "approver"}),
    ("values-entra.yaml", ENTRA, {"groups": None, "_claim_names": {"groups": "src1"}}, set()),
    ("values-okta.yaml", OKTA, {}, {"staff", "approver"}),
    ("values-okta.yaml", OKTA, {OKTA_ROLES: ["Chat Staff", "Chat Admins"]}, {"staff"}),
]


@pytest.mark.parametrize(("name", "provider", "changed", "roles"), SHAPES)
async def test_the_maps_of_the_page_fit_the_provider_s_tokens(
    name: str,
    provider: IdentityProvider,
    changed: dict[str, object],
    roles: set[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with opened(name, monkeypatch, tmp_path) as authenticators:
        assert set(authenticators) == {"chatbot", "ingest"}
        for authenticator in authenticators.values():
            found: Principal = await authenticator.verify(provider.token(**changed))
            assert (found.tenant, found.sub) == ("examplebank", provider.claims[SUBJECTS[name]])
            assert found.roles == roles


def test_each_page_signs_in_at_its_own_provider_with_secrets_of_the_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    customers = {"issuer": "https://login.example.com", "clientId": "chat", "scopes": "openid offline_access"}
    docs = render("values-prod", "--set-json", f"signIn.chatbot={json.dumps(customers)}")
    found = {where: pod["spec"]["containers"][0] for where, pod in pods(docs)}
    chat = {each["name"]: each for each in found[f"Deployment/{NAME}-chatbot"]["env"]}
    keys = {
        name: chat[f"OIDC__{name}"]["valueFrom"]["secretKeyRef"]["key"] for name in ("CLIENT_SECRET", "SESSION_KEY")
    }
    assert keys == {"CLIENT_SECRET": "CHATBOT_OIDC_CLIENT_SECRET", "SESSION_KEY": "CHATBOT_OIDC_SESSION_KEY"}
    with monkeypatch.context() as patched:
        for name, variable in chat.items():
            if name.startswith(("AUTH__", "OIDC__")):
                patched.setenv(name, variable.get("value", "k" * 32))
        patched.setenv("REDIS_URL", "redis://127.0.0.1")
        patched.setenv("AUDIT_KEY", "k" * 32)
        oidc = ChatSettings().oidc
    assert oidc is not None
    assert (oidc.client_id, oidc.scopes) == ("chat", "openid offline_access")
    signing_in = {where for where, container in found.items() if "OIDC__ISSUER" in environment(container)}
    assert signing_in == {f"Deployment/{NAME}-chatbot"}


def test_the_staff_s_page_signs_in_and_no_worker_does() -> None:
    staff = {"issuer": "https://login.example.com", "clientId": "documents", "scopes": "openid"}
    found = {
        where: {name for name in environment(pod["spec"]["containers"][0]) if name.startswith("OIDC__")}
        for where, pod in pods(render("values-prod", "--set-json", f"signIn.ingest={json.dumps(staff)}"))
    }
    assert {where for where, names in found.items() if names} == {f"Deployment/{NAME}-ingest"}
    staff["issuer"] = "https://login.bank.internal"
    ingress = render("values-airgapped", "--set-json", f"signIn.ingest={json.dumps(staff)}")
    assert str(ingress).count("'/oidc/'") == 1


DOCUMENTS, CHAT = "api://bank-documents", "api://bank-chatbot"


async def test_two_issuers_at_once_on_both_apis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened("values-two-issuers.yaml", monkeypatch, tmp_path) as authenticators:
        chat, documents = authenticators["chatbot"], authenticators["ingest"]
        # The customers' issuer makes no staff, and staff's no customers, whatever they sign.
        promoted = KEYCLOAK.token(realm_access={"roles": ["chat-customer", "Chat Approvers", "staff"]}, roles=["staff"])
        assert (await chat.verify(promoted)).roles == (await documents.verify(promoted)).roles == {"customer"}
        demoted = OKTA.token(aud=CHAT, **{OKTA_ROLES: ["chat-customer", "customer"]})
        assert "customer" not in (await chat.verify(demoted)).roles
        assert (await documents.verify(OKTA.token(aud=DOCUMENTS))).roles == {"staff", "approver"}
        for authenticator, token in (
            (chat, OKTA.token(aud=DOCUMENTS)),  # an audience for each API
            (documents, OKTA.token(aud=CHAT)),
            (documents, OKTA.signed(KEYCLOAK.key(), OKTA.key_id, {"aud": DOCUMENTS})),
            (chat, KEYCLOAK.signed(OKTA.key(), KEYCLOAK.key_id)),
        ):
            with pytest.raises(TokenRefused):
                await authenticator.verify(token)
