"""Who may make, see and revoke keys of machines by the admin calls, and what is told of them."""

import json
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import httpx2
import pytest
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from chatbot.api import create_app
from chatbot.deferred import DeferredSettings, DeferredWrites
from chatbot.limits import Ledger, LedgerSettings
from chatbot.metrics import Metrics
from chatbot.redis_client import RedisBreaker, RedisBreakerSettings
from chatbot.services import Services
from evals.sample_bank import sample_banks
from knowledge.identity import ROLES, Authenticator, AuthSettings, KeyFile
from knowledge.service_keys import MOST_KEYS_PER_TENANT, ServiceKeys, load_service_keys
from telemetry.siem import Siem
from tests.clock import Clock
from tests.ingest.keys import ISSUER, key_and_token
from tests.log_and_spans import listening_to, written_log
from tests.ocsf import security_events

pytestmark = pytest.mark.anyio

ADDRESS = "/v1/admin/keys"
NOON = 1_800_000_000.0


@dataclass(frozen=True)
class Api:
    """The chat API of which sign-in and keys work, and a maker of headers."""

    http: httpx2.AsyncClient
    token: Callable[..., str]
    keys: ServiceKeys
    recorded: Callable[[], str]

    def of(self, *roles: str, sub: str = "park", tenant: str = "hanbit") -> dict[str, str]:
        return {"authorization": f"Bearer {self.token(sub, *roles, tenant=tenant)}"}

    async def make(self, who: dict[str, str], *roles: str, **more: object) -> httpx2.Response:
        return await self.http.post(ADDRESS, headers=who, json={"name": "the batch", "roles": roles, **more})

    async def list(self, who: dict[str, str]) -> list[str]:
        """Return the names of the listed keys' tenants."""
        listed = (await self.http.get(ADDRESS, headers=who)).json()["keys"]
        return [key["tenant"] for key in listed]


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@pytest.fixture
async def api(engine: AsyncEngine, tmp_path: Path, nowhere: Redis) -> AsyncGenerator[Api]:
    now = Clock(NOON)
    siem = Siem("chatbot", now=now)
    keys = await load_service_keys(engine, now=now)
    token, file = key_and_token(tmp_path)
    authenticator = Authenticator(
        {ISSUER: KeyFile(file.read_bytes())},
        AuthSettings(issuer=ISSUER, public_key_file=file),
        principal_of_key=keys.principal,
    )
    parts = SimpleNamespace(
        authenticator=authenticator,
        banks=sample_banks(),
        ledger=Ledger(
            nowhere, RedisBreaker(RedisBreakerSettings()), LedgerSettings(), deferred=DeferredWrites(DeferredSettings())
        ),
        metrics=Metrics(),
        models=SimpleNamespace(model="scripted"),
        sign_in=None,
        service_keys=keys,
        siem=siem,
    )
    with written_log() as lines, listening_to(lines) as recorded:
        app = create_app(cast("Services", parts), tracer_provider=recorded.provider)
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://bank") as http:
            yield Api(http, token, keys, recorded.all)


async def test_a_key_is_shown_once_and_signs_in_as_its_machine(api: Api) -> None:
    made = await api.make(api.of("admin"), "admin", "service", days=7)
    assert made.status_code == 201, made.text
    assert made.headers["cache-control"] == "no-store"
    key, shown = made.json()["key"], made.json()["made"]
    assert (shown["made_by"], shown["tenant"], shown["roles"]) == ("hanbit/park", "hanbit", ["admin", "service"])
    assert (shown["made_at"], shown["expires_at"]) == (NOON, NOON + 7 * 86_400)
    listed = await api.http.get(ADDRESS, headers=bearer(key))
    assert listed.status_code == 200, listed.text
    assert [one["id"] for one in listed.json()["keys"]] == [shown["id"]]
    assert key[-64:] not in listed.text
    assert api.keys.principal(key).sub == f"service:{shown['id']}"


@pytest.mark.parametrize(
    ("maker", "roles", "status"),
    [
        (("admin",), ("customer", "staff", "service", "evals", "admin"), 201),
        (("admin",), ("service", "platform"), 403),
        (("platform",), ("service",), 403),
        (("platform",), ("admin",), 403),
        (("platform", "staff"), ("staff",), 201),
        (("admin", "platform"), ("platform", "service"), 201),
        (("approver", "admin"), ("approver",), 422),
        (("admin",), ("root",), 422),
        (("admin",), (), 422),
        (("staff", "approver", "service", "customer", "evals"), ("service",), 403),
    ],
)
async def test_no_key_may_do_more_than_its_maker(
    api: Api, maker: tuple[str, ...], roles: tuple[str, ...], status: int
) -> None:
    assert (await api.make(api.of(*maker), *roles)).status_code == status
    made = await api.keys.newest()
    assert [key.roles for key in made] == ([frozenset(roles)] if status == 201 else [])


async def test_a_key_makes_no_keys_whatever_its_roles(api: Api) -> None:
    key = (await api.make(api.of("admin", "platform"), "admin", "platform", "service")).json()["key"]
    refused = await api.make(bearer(key), "service")
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    assert len(await api.keys.newest()) == 1


async def test_an_admin_manages_the_keys_of_one_tenant_the_platform_of_all(api: Api) -> None:
    ours = (await api.make(api.of("admin"), "service")).json()
    theirs = (await api.make(api.of("admin", tenant="other"), "service")).json()
    assert await api.list(api.of("admin")) == ["hanbit"]
    assert sorted(await api.list(api.of("platform", tenant="ops"))) == ["hanbit", "other"]
    address = f"{ADDRESS}/{theirs['made']['id']}"
    assert (await api.http.delete(address, headers=api.of("admin"))).status_code == 404
    assert api.keys.principal(theirs["key"]).tenant == "other"
    revoked = await api.http.delete(address, headers=api.of("platform", sub="choi", tenant="ops"))
    assert (revoked.status_code, revoked.json()["revoked_by"]) == (200, "ops/choi")
    assert (await api.http.get(ADDRESS, headers=bearer(theirs["key"]))).status_code == 401
    assert (await api.http.get(ADDRESS, headers=bearer(ours["key"]))).status_code == 403, "service keeps no keys"
    assert (await api.http.delete(f"{ADDRESS}/{'0' * 16}", headers=api.of("platform"))).status_code == 404


@pytest.mark.parametrize(
    "more",
    [
        {"days": 91},
        {"days": 0},
        {"name": " "},
        {"name": "a\0b"},
        {"name": "x" * 101},
        {"name": "a\nb"},
        {"name": "a\x1b[2Jb"},
        {"name": "a\u202eb"},
    ],
)
async def test_an_invalid_key_name_or_lifetime_is_refused(api: Api, more: dict[str, object]) -> None:
    assert (await api.make(api.of("admin"), "service", **more)).status_code == 422


async def test_a_tenant_with_too_many_keys_is_refused_another(api: Api) -> None:
    for _ in range(MOST_KEYS_PER_TENANT):
        assert (await api.make(api.of("admin"), "service")).status_code == 201
    full = await api.make(api.of("admin"), "service")
    assert (full.status_code, "revoke one first" in full.json()["detail"]) == (422, True)


async def test_without_the_database_keys_are_not_believed(api: Api, engine: AsyncEngine, tmp_path: Path) -> None:
    key = (await api.make(api.of("admin"), "admin")).json()["key"]
    await engine.dispose()
    database = tmp_path / "test.sqlite3"
    database.rename(tmp_path / "elsewhere")
    database.mkdir()
    assert (await api.make(api.of("admin"), "service")).status_code == 503
    assert (await api.http.get(ADDRESS, headers=api.of("admin"))).status_code == 503
    assert (await api.http.delete(f"{ADDRESS}/{'0' * 16}", headers=api.of("admin"))).status_code == 503
    api.keys._read_at -= 5.1
    away = await api.http.get(ADDRESS, headers=bearer(key))
    assert (away.status_code, away.headers["retry-after"]) == (503, "5")


async def test_the_siem_gets_every_event_of_a_key(api: Api) -> None:
    made = (await api.make(api.of("admin"), "service", "staff")).json()
    address = f"{ADDRESS}/{made['made']['id']}"
    assert (await api.http.delete(address, headers=api.of("platform", sub="choi", tenant="ops"))).status_code == 200
    assert (await api.http.get(ADDRESS, headers=bearer(made["key"]))).status_code == 401
    assert (await api.http.get(ADDRESS)).status_code == 401, "who sends nothing has tried nothing"
    text = api.recorded()
    lines = [json.loads(line) for line in text.splitlines() if '"security_event"' in line]
    made_event, revoked, refused = security_events(lines)
    assert [made_event["metadata"]["event_code"], revoked["metadata"]["event_code"]] == ["key_made", "key_revoked"]
    assert made_event["status_detail"] == "roles: service, staff"
    assert [event["actor"]["user"]["uid"] for event in (made_event, revoked)] == ["park", "choi"]
    for event in (made_event, revoked):
        assert event["user"] == {"uid": f"service:{made['made']['id']}", "type_id": 4}
        assert event["metadata"]["tenant_uid"] == "hanbit"
        assert event["time"] == NOON * 1000
    assert (refused["class_uid"], refused["status_detail"]) == (3002, "the service key is unknown, revoked or expired")
    assert made["key"][21:] not in text
    assert "the batch" not in text


async def test_no_log_and_no_span_contains_a_key(api: Api) -> None:
    key = (await api.make(api.of("admin"), *sorted(ROLES - {"approver", "platform"}))).json()["key"]
    assert (await api.http.get(ADDRESS, headers=bearer(key))).status_code == 200
    wrong = key[:-4] + "0000"
    for sent in (wrong, key[:-1], key + "x"):
        refused = await api.http.get(ADDRESS, headers=bearer(sent))
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        assert key[24:60] not in refused.text
    await api.http.delete(f"{ADDRESS}/{key[4:20]}", headers=api.of("admin"))
    text = api.recorded()
    assert f'"key": "{key[4:20]}"' in text, "who made which key"
    assert '"service_key_revoked"' in text
    assert key[24:60] not in text
