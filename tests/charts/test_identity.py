"""The values of docs/identity.md for identity providers: rendered, read by both services, held against tokens."""

import json
import re
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import httpx2
import pytest
from fastapi import FastAPI
from redis.asyncio import Redis

from chatbot.api import create_app as create_chat_app
from chatbot.deferred import DeferredSettings, DeferredWrites
from chatbot.limits import Ledger, LedgerSettings
from chatbot.metrics import Metrics as ChatMetrics
from chatbot.redis_client import RedisBreaker, RedisBreakerSettings
from chatbot.services import Services as ChatServices
from chatbot.settings import Settings as ChatSettings
from evals.sample_bank import sample_banks
from ingest.app import create_app as create_staff_app
from ingest.metrics import Metrics as StaffMetrics
from ingest.services import PipelineSettings
from ingest.services import Services as StaffServices
from ingest.settings import Settings as StaffSettings
from knowledge.identity import Authenticator, AuthSettings, Principal, open_authenticator
from telemetry.siem import Siem
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


def test_other_issuers_may_be_taken_away_with_null() -> None:
    assert render("values", "--set", "auth.issuers=null") == render("values")


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


def apps(authenticators: dict[str, Authenticator]) -> dict[str, FastAPI]:
    """Return both APIs over no services but who may come in."""
    chat = SimpleNamespace(
        authenticator=authenticators["chatbot"],
        ledger=Ledger(
            Redis(host="127.0.0.1", port=1, socket_connect_timeout=1),
            RedisBreaker(RedisBreakerSettings()),
            LedgerSettings(),
            deferred=DeferredWrites(DeferredSettings()),
        ),
        metrics=ChatMetrics(),
        models=SimpleNamespace(model="scripted"),
        banks=sample_banks(),
        now=time.time,
        sign_in=None,
        siem=Siem("chatbot"),
    )
    staff = SimpleNamespace(
        authenticator=authenticators["ingest"],
        metrics=StaffMetrics(),
        blobs=SimpleNamespace(most_bytes=2**20),
        settings=PipelineSettings(),
        sign_in=None,
        siem=Siem("ingest"),
    )
    return {
        "chatbot": create_chat_app(cast("ChatServices", chat)),
        "ingest": create_staff_app(cast("StaffServices", staff), sample_banks()),
    }


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
    paths = {
        doc["metadata"]["name"]: [match["path"]["value"] for rule in doc["spec"]["rules"] for match in rule["matches"]]
        for doc in docs
        if doc["kind"] == "HTTPRoute"
    }
    assert "/oidc/" in paths[f"{NAME}-chatbot"]
    assert "/oidc/" not in paths[f"{NAME}-ingest"]


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
        served = apps(authenticators)

        async def status(api: str, token: str) -> int:
            transport = httpx2.ASGITransport(app=served[api])
            async with httpx2.AsyncClient(transport=transport, base_url="http://bank") as http:
                address = {"chatbot": "/v1/models", "ingest": "/v1/me"}[api]
                return (await http.get(address, headers={"authorization": f"Bearer {token}"})).status_code

        customer, staff = KEYCLOAK.token(), OKTA.token(aud=DOCUMENTS)
        assert (await status("chatbot", customer), await status("ingest", customer)) == (200, 403)
        assert await status("ingest", staff) == 200
        assert await status("chatbot", OKTA.token(aud=CHAT)) == 200
        # An audience for each API: a token for one is foreign to the other.
        assert (await status("chatbot", staff), await status("ingest", OKTA.token(aud=CHAT))) == (401, 401)
        assert (await status("chatbot", OKTA.token(aud=[CHAT, DOCUMENTS]))) == 200
        # The customers' issuer makes no staff, and staff's no customers, whatever they sign.
        promoted = KEYCLOAK.token(realm_access={"roles": ["chat-customer", "Chat Approvers", "staff"]}, roles=["staff"])
        assert (await status("chatbot", promoted), await status("ingest", promoted)) == (200, 403)
        demoted = OKTA.token(aud=CHAT, **{OKTA_ROLES: ["chat-customer", "customer"]})
        assert await status("chatbot", demoted) == 403
        for mixed in (
            OKTA.signed(KEYCLOAK.key(), OKTA.key_id, {"aud": DOCUMENTS}),
            KEYCLOAK.signed(OKTA.key(), KEYCLOAK.key_id),
        ):
            assert (await status("chatbot", mixed), await status("ingest", mixed)) == (401, 401)
        for shape in ({"realm_access": "customer"}, {"realm_access": {"roles": 7}}, {"groups": ["g"] * 10_000}):
            token = KEYCLOAK.token(**shape)
            assert (await status("chatbot", token), await status("ingest", token)) == (401, 401)
