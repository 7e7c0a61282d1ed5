"""The pages of both services, which sign in at one provider, and helpers for tests."""

import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit, urlunsplit
from uuid import uuid4

import httpx2
from fastapi import FastAPI
from redis.asyncio import Redis

from chatbot.api import create_app as create_chat_app
from chatbot.deferred import DeferredSettings, DeferredWrites
from chatbot.limits import Ledger, LedgerSettings
from chatbot.metrics import Metrics as ChatMetrics
from chatbot.redis_client import RedisBreaker, RedisBreakerSettings
from chatbot.services import Services as ChatServices
from edge.sign_in import OidcSettings, open_sign_in
from ingest.app import create_app as create_staff_app
from ingest.metrics import Metrics as StaffMetrics
from ingest.services import PipelineSettings
from ingest.services import Services as StaffServices
from knowledge.bank import Banks
from knowledge.identity import AuthSettings, open_authenticator
from telemetry.siem import Siem
from tests.clock import Clock
from tests.constants import settings_with
from tests.oidc_provider import CLIENT, Provider, Visitor

DUSK = "https://chat.dusk.example"
ME = "/v1/me"
EVENTS: dict[str, dict[str, str]] = {"http://schemas.openid.net/event/backchannel-logout": {}}


def changed(url: str, **parameters: str) -> str:
    """Return a URL with changed query parameters."""
    parts = urlsplit(url)
    query = {name: values[0] for name, values in parse_qs(parts.query).items()} | parameters
    return urlunsplit(parts._replace(query=str(httpx2.QueryParams(query))))


class Pages:
    """Two replicas of the staff API and one chat API, which sign in at one provider and share a clock."""

    def __init__(self, at: Provider, origin: str) -> None:
        self.provider = at
        self.origin = origin
        self.clock = Clock(time.time())
        self.replicas: list[FastAPI] = []
        self.chat = FastAPI()
        self.visitors: list[Visitor] = []

    def visitor(self, origin: str | None = None, *, replica: int = 0) -> Visitor:
        """Return a browser at a page."""
        visitor = Visitor(self.client(self.replicas[replica], origin))
        self.visitors.append(visitor)
        return visitor

    def client(self, app: FastAPI, origin: str | None = None) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url=origin or self.origin)

    async def elsewhere(self, visitor: Visitor, replica: int = 1) -> int:
        """Return another replica's reply to the visitor's cookies."""
        async with self.client(self.replicas[replica]) as other:
            other.cookies = visitor.page.cookies
            return (await other.get(ME)).status_code


@asynccontextmanager
async def opened(
    at: Provider, origin: str, redis_url: str, banks: Banks, *, auth: dict[str, Any] | None = None, **settings: Any
) -> AsyncGenerator[Pages]:
    """Open the pages; each service has its own connections, like a separate process, and verifies tokens by `auth`."""
    pages = Pages(at, origin)
    oidc = settings_with(OidcSettings, **(at.settings() | {"timeout": 30} | settings))  # the machine may be busy
    async with AsyncExitStack() as stack:
        for _ in range(2):
            now = pages.clock
            who = await stack.enter_async_context(open_authenticator(AuthSettings(**at.auth() | (auth or {})), now=now))
            sign_in = await stack.enter_async_context(open_sign_in(oidc, redis_url, who, banks, now=now))
            blobs = SimpleNamespace(most_bytes=2**20)
            staff = SimpleNamespace(
                authenticator=who,
                sign_in=sign_in,
                metrics=StaffMetrics(),
                blobs=blobs,
                settings=PipelineSettings(),
                siem=Siem("ingest"),
            )
            pages.replicas.append(create_staff_app(cast("StaffServices", staff), banks))
        away = Redis(host="127.0.0.1", port=1, socket_connect_timeout=1)
        chat = SimpleNamespace(
            authenticator=who,
            sign_in=sign_in,
            ledger=Ledger(
                away,
                RedisBreaker(RedisBreakerSettings()),
                LedgerSettings(),
                deferred=DeferredWrites(DeferredSettings()),
            ),
            metrics=ChatMetrics(),
            models=SimpleNamespace(model="scripted"),
            banks=banks,
            now=pages.clock,
            siem=Siem("chatbot"),
        )
        pages.chat = create_chat_app(cast("ChatServices", chat))
        yield pages
        for visitor in pages.visitors:
            await visitor.close()


def bearer_of(at: Provider) -> dict[str, str]:
    """Return a header with the token of a person other than the sessions'."""
    now = int(time.time())
    claims = {"sub": "park", "tenant": "hanbit", "roles": ["staff"], "aud": "bank-chatbot"}
    return {"authorization": f"Bearer {at.signed({**claims, 'iat': now, 'exp': now + 60})}"}


def logout(pages: Pages, **claims: object) -> dict[str, object]:
    now = int(pages.clock())
    given = {"aud": CLIENT, "iat": now, "exp": now + 120, "jti": uuid4().hex, "events": EVENTS} | claims
    return {name: value for name, value in given.items() if value is not None}
