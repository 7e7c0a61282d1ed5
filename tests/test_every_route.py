"""What holds for every address of both APIs, whatever a service behind it does."""

import io
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx2
import pytest
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from opentelemetry.sdk.trace import TracerProvider
from redis.asyncio import Redis

from chatbot.api import LocalSigner, key_pair
from chatbot.api import create_app as create_chat_app
from chatbot.deferred import DeferredSettings, DeferredWrites
from chatbot.limits import Ledger, LedgerSettings
from chatbot.metrics import Metrics as ChatMetrics
from chatbot.redis_client import RedisBreaker, RedisBreakerSettings
from chatbot.services import Services as ChatServices
from evals.sample_bank import sample_banks
from ingest.app import create_app as create_staff_app
from ingest.metrics import Metrics as StaffMetrics
from ingest.services import Services as StaffServices
from knowledge.identity import ROLES, Authenticator, AuthSettings, KeyFile
from telemetry.siem import Siem
from tests.every_route import TEXT, WELL_FORMED, WORD, Address, Requests, addresses, leaked, send
from tests.ingest.keys import ISSUER, key_and_token
from tests.log_and_spans import Recorded, listening_to, written_log

pytestmark = pytest.mark.anyio

PAGE = {"/", "/web/{file}", "/web/bank.js", "/web/bank.css", "/web/logo"}
"""The page's own files, which a browser asks for anew."""
WITHOUT_SERVICES = {"/livez", "/openapi.json", "/demo/login", "/oidc/sign-out", *PAGE}
"""Nothing behind them can fail, or what is not from our own page is refused before."""


class Broken:
    """A part with a bug, whose error repeats what it was given, as errors do."""

    def __getattr__(self, name: str) -> Any:
        raise ValueError(f"{name}: cannot read {TEXT}") from KeyError(TEXT)


class Parts(SimpleNamespace):
    """Services of which only the given ones work."""

    def __getattr__(self, name: str) -> Any:
        return Broken()


def chat_app(folder: Path, authenticator: Authenticator, provider: TracerProvider | None = None) -> FastAPI:
    ledger = Ledger(
        Redis(host="127.0.0.1", port=1, socket_connect_timeout=1),
        RedisBreaker(RedisBreakerSettings()),
        LedgerSettings(),
        deferred=DeferredWrites(DeferredSettings()),
    )
    parts = Parts(
        authenticator=authenticator,
        ledger=ledger,
        metrics=ChatMetrics(),
        models=SimpleNamespace(model="scripted"),
        banks=sample_banks(),
        pings=Broken(),
        siem=Siem("chatbot"),
    )
    private, _ = key_pair(folder)
    signer = LocalSigner(private.read_text("ascii"))
    return create_chat_app(cast("ChatServices", parts), tracer_provider=provider, demo=signer)


def staff_app(_folder: Path, authenticator: Authenticator, provider: TracerProvider | None = None) -> FastAPI:
    siem = Siem("ingest")
    blobs = SimpleNamespace(most_bytes=2**20)
    parts = Parts(authenticator=authenticator, metrics=StaffMetrics(), blobs=blobs, siem=siem)
    return create_staff_app(
        cast("StaffServices", parts), sample_banks(), tracer_provider=provider, demo=lambda who: (who.sub, 0)
    )


@dataclass(frozen=True)
class Served:
    """An application over broken services, a token of its own, and what it tells of its requests."""

    app: FastAPI
    http: httpx2.AsyncClient
    token: Callable[..., str]
    recorded: Recorded

    @property
    def authorization(self) -> str:
        """The header of somebody with every role."""
        return self.of(*sorted(ROLES))

    def of(self, *roles: str) -> str:
        """Return the header of somebody with these roles."""
        return f"Bearer {self.token(WORD, *roles)}"


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    with written_log() as written:
        yield written


@asynccontextmanager
async def opened(make: Any, folder: Path, lines: io.StringIO) -> AsyncGenerator[Served]:
    token, file = key_and_token(folder)
    authenticator = Authenticator(
        {ISSUER: KeyFile(file.read_bytes())}, AuthSettings(issuer=ISSUER, public_key_file=file)
    )
    with listening_to(lines) as recorded:
        app = make(folder, authenticator, recorded.provider)
        transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url="http://bank") as http:
            yield Served(app, http, token, recorded)


APPS = pytest.mark.parametrize("make", [chat_app, staff_app])


@APPS
async def test_every_reply_forbids_caching_and_has_the_content_policy(
    make: Any, tmp_path: Path, lines: io.StringIO
) -> None:
    async with opened(make, tmp_path, lines) as served:
        replies: list[tuple[Address, httpx2.Response]] = []
        for authorization in (served.authorization, f"Bearer {WORD}", ""):
            replies += await send(served.http, Requests(app=served.app), authorization=authorization)
        for address in addresses(served.app):
            replies.append((address, await served.http.request("PATCH", address.path, content=TEXT.encode())))
    statuses = {reply.status_code for _, reply in replies}
    assert statuses >= {200, 401, 404, 405, 500}, statuses
    for address, reply in replies:
        headers = reply.headers
        assert headers["content-security-policy"].startswith("default-src 'none'"), str(address)
        assert headers["x-content-type-options"] == "nosniff", str(address)
        stored = headers.get_list("cache-control")
        assert stored == (["no-cache"] if address.path in PAGE and reply.is_success else ["no-store"]), str(address)
        if reply.status_code == 500:
            assert leaked(reply.text) == [], str(address)


@APPS
async def test_no_bug_behind_any_address_logs_customer_text(make: Any, tmp_path: Path, lines: io.StringIO) -> None:
    async with opened(make, tmp_path, lines) as served:
        requests = Requests(app=served.app, given=dict(WELL_FORMED))
        replies = await send(served.http, requests, authorization=served.authorization)
        # Every address but these got as far as its services, or its bug would show nothing.
        served_well = {address.path for address, reply in replies if reply.status_code < 500}
        assert served_well - WITHOUT_SERVICES == set(), {
            str(address): reply.text[:300] for address, reply in replies if 200 < reply.status_code < 500
        }
        text = served.recorded.all()
    assert text.count('"request_failed"') == sum(reply.status_code == 500 for _, reply in replies) > 10
    assert '"ValueError' in text, "what kind of failure it was"
    assert "KeyError" in text, "and what led to it"
    assert "in __getattr__" in text, "and where"
    assert leaked(text) == []


@APPS
async def test_no_refusal_of_any_address_logs_customer_text(make: Any, tmp_path: Path, lines: io.StringIO) -> None:
    async with opened(make, tmp_path, lines) as served:
        for authorization in (f"Bearer {WORD}", ""):
            await send(served.http, Requests(app=served.app), authorization=authorization)
        given = {"model": [TEXT], "q": "", "message": {WORD: TEXT}, "limit": TEXT, "page": TEXT, "reason": ""}
        await send(served.http, Requests(app=served.app, given=given), authorization=served.authorization)
        await served.http.request(f"{WORD}", "/", headers={"host": f"{WORD}.example"})
        await served.http.get(f"/{WORD}/880101-1234567")
        for address in addresses(served.app):
            if address.method == "POST":
                reply = await served.http.post(
                    address.path, content=f'{{"{WORD}'.encode(), headers={"authorization": served.authorization}
                )
                refused = {403} if address.path == "/oidc/sign-out" else {400, 422, 500}
                assert reply.status_code in refused, f"{address}: {reply.status_code}"
        text = served.recorded.all()
    assert text.count('"name": "') > len(addresses(served.app))
    assert leaked(text) == []


@APPS
async def test_no_list_of_any_address_makes_an_error_an_item(make: Any, tmp_path: Path, lines: io.StringIO) -> None:
    # An error costs 15 us of the event loop: a body of 64 KB of them, which nothing has counted yet, stopped it.
    async with opened(make, tmp_path, lines) as served:
        errors: dict[str, list[int]] = {}
        handler: Any = served.app.exception_handlers[RequestValidationError]

        async def counted(request: Request, exc: RequestValidationError) -> Any:
            errors.setdefault(f"{request.method} {request.url.path}", []).append(len(exc.errors()))
            return await handler(request, exc)

        served.app.exception_handlers[RequestValidationError] = counted
        requests = Requests(app=served.app, given={"model": "scripted"})
        for address in addresses(served.app):
            for flood in requests.floods(address):
                await served.http.request(**flood | {"headers": {"authorization": served.authorization}})
    assert sum(map(len, errors.values())) >= 2, errors
    assert {name: max(counts) for name, counts in errors.items() if max(counts) > 25} == {}


@APPS
async def test_every_refusal_of_the_framework_has_a_documented_code(
    make: Any, tmp_path: Path, lines: io.StringIO
) -> None:
    broken = (b"\xff", b"[" * 30_000, b'{"message": ' + b"9" * 5_000 + b"}")
    async with opened(make, tmp_path, lines) as served:
        headers = {"authorization": served.authorization, "content-type": "application/json"}
        replies = [await served.http.request("PATCH", address.path) for address in addresses(served.app)]
        replies += [
            await served.http.request(address.method, address.path, content=body, headers=headers)
            for address in addresses(served.app)
            if "application/json" in address.operation.get("requestBody", {}).get("content", {})
            for body in broken
        ]
    bodies = [(reply.status_code, reply.json()) for reply in replies if "json" in reply.headers["content-type"]]
    codes = {(status, body.get("error", body)["code"]) for status, body in bodies if status >= 400}
    assert codes >= {(400, "bad_request"), (405, "method_not_allowed")}
    assert {code for _, code in codes if code.startswith("http_")} == set()


async def test_admin_addresses_refuse_others_and_name_no_tenant(tmp_path: Path, lines: io.StringIO) -> None:
    async with opened(chat_app, tmp_path, lines) as served:
        requests = Requests(app=served.app, given=dict(WELL_FORMED))
        others = served.of(*sorted(ROLES - {"admin", "platform"}))
        statuses = {
            str(address): (reply.status_code, by_admin.status_code, address)
            for (address, reply), (_, by_admin) in zip(
                await send(served.http, requests, authorization=others),
                await send(served.http, requests, authorization=served.of("admin")),
                strict=True,
            )
            if "admin" in address.path
        }
    assert len(statuses) > 8
    assert {name: others for name, (others, _, _) in statuses.items() if others != 403} == {}
    # What an admin may call takes the tenant from the token: nothing in the request could name another.
    named = {
        name: Requests(app=served.app, given={"tenant": "another"}).of(address, headers={})
        for name, (_, by_admin, address) in statuses.items()
        if by_admin != 403
    }
    assert {name for name, request in named.items() if "another" in str(request)} == set()
    assert {name for name, (_, by_admin, _) in statuses.items() if by_admin == 403} >= {
        "POST /v1/admin/stop",
        "POST /v1/admin/resume",
        "GET /v1/admin/stops",
    }
