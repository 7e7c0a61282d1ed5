"""Both services in one process, as in `make run`, over a test's own stores, which it can stop."""

import json
import math
import ssl
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any
from uuid import uuid4

import anyio
import httpx2
from fastapi import FastAPI
from opentelemetry.sdk.trace import TracerProvider
from pydantic import SecretStr
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import ConnectionPoolEntry

from chatbot.answerability import AnswerabilitySettings
from chatbot.api import create_app as create_chat_app
from chatbot.limits import LedgerSettings, Limit, LimitSettings
from chatbot.services import TurnSettings
from chatbot.settings import Settings as ChatSettings
from chatbot.wiring import open_services as open_chat
from edge import bind, listening
from evals.sample_bank import SAMPLE_BANK
from ingest.app import create_app as create_staff_app
from ingest.parsing import Readers
from ingest.settings import Settings as StaffSettings
from ingest.wiring import open_services as open_staff
from knowledge.embedding import Embedder
from knowledge.identity import ROLES, AuthSettings
from knowledge.index import IndexSettings, open_index
from knowledge.storage import close_engine, open_engine
from knowledge.terms import Terms
from llm_server.scripted import ScriptedModel
from tests.conftest import RedisServer
from tests.every_route import TEXT, WELL_FORMED, WORD, Requests, addresses
from tests.ingest.keys import ISSUER, key_and_token
from tests.patience import patient

TITLE = TEXT[:60]
OFTEN = Limit(tokens_per_minute=10**7, requests_per_minute=1000, concurrent=100, tokens_per_day=10**8)


@dataclass(frozen=True, kw_only=True)
class Stores:
    """The stores of both services, and the parts that take long to load."""

    redis: RedisServer
    model: ScriptedModel
    database_url: str
    staff_database_url: str | None = None
    """None: the same as the chat API's."""
    index: IndexSettings
    weights: Path
    embedder: Embedder
    terms: Terms
    readers: Readers


@dataclass(frozen=True, kw_only=True)
class Api:
    """A running service, a client for it, and a function that returns a caller's headers (subject, roles…)."""

    app: FastAPI
    http: httpx2.AsyncClient
    headers: Callable[..., dict[str, str]]

    async def ask_everything(self, given: Mapping[str, Any]) -> dict[str, httpx2.Response]:
        """Send the request of every address sequentially; return each reply that completed."""
        requests = Requests(app=self.app, given={**WELL_FORMED, **given})
        replies: dict[str, httpx2.Response] = {}
        for address in addresses(self.app):
            # The log names the admin who resets a limit (docs/runbooks/limits.md), so no canary is used here.
            who = "an-admin" if "admin" in address.path else WORD
            headers = self.headers(who, *sorted(ROLES)) | {"idempotency-key": f"{WORD}-{uuid4().hex}"}
            if "answer_id" in address.path:
                headers["last-event-id"] = f"{given['answer_id']}.1"
            if "job_id" in address.path:
                headers["last-event-id"] = f"{given['job_id']}.1"
            # A job's event stream may not end, so leave it after a second.
            with anyio.move_on_after(1 if address.path.endswith("/events") else math.inf):
                replies[str(address)] = await self.http.request(**requests.of(address, headers=headers))
        return replies


@dataclass(frozen=True, kw_only=True)
class Bank:
    """Both services and their stores; names of customers, staff, questions and documents contain canaries."""

    chat: Api
    staff: Api
    stores: Stores

    async def ask(self, name: str) -> dict[str, Any]:
        """Ask a question made unique by `name`, read the whole answer, and return the data of its first event."""
        headers = self.chat.headers(WORD, "customer")
        reply = await self.chat.http.post("/v1/chat", json={"message": f"{TEXT} {name}"}, headers=headers)
        assert reply.status_code == 200, reply.text
        accepted: dict[str, Any] = json.loads(reply.text.split("data: ")[1].partition("\n")[0])
        return accepted

    async def hand_in(self, name: str) -> dict[str, Any]:
        """Upload a document and return its job."""
        file = (f"{WORD}-{name}.md", f"# {TITLE}\n\n{TEXT}\n\n{name}\n".encode())
        headers = self.staff.headers(WORD, "staff")
        reply = await self.staff.http.post(
            "/v1/documents", files={"file": file}, data={"title": TITLE}, headers=headers
        )
        assert reply.status_code == 202, reply.text
        job: dict[str, Any] = reply.json()
        return job

    async def approve(self, job: Mapping[str, Any]) -> None:
        """Wait until a document is indexed, then approve it as a second person."""
        headers = self.staff.headers(f"{WORD}-2", "staff", "approver")
        path = f"/v1/documents/{job['document_id']}/versions/{job['version']}/approve"
        with anyio.fail_after(patient(10)):
            while (await self.staff.http.get(f"/v1/jobs/{job['job_id']}", headers=headers)).json()["state"] != "done":
                await anyio.sleep(0.01)
        reply = await self.staff.http.post(path, headers=headers, json={})
        assert reply.status_code == 200, reply.text

    async def until_answered(self) -> None:
        """Ask until the model is called: an approved document may become visible only two seconds later."""
        with anyio.fail_after(patient(10)):
            while not self.stores.model.stats().started:
                await self.ask("once more")

    async def ask_everything(self, given: Mapping[str, Any]) -> dict[str, httpx2.Response]:
        """Send the requests of both services; return each reply by service name and address."""
        replies: dict[str, httpx2.Response] = {}

        async def ask(name: str, api: Api) -> None:
            for address, reply in (await api.ask_everything(given)).items():
                replies[f"{name} {address}"] = reply

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask, "chat", self.chat)
            tasks.start_soon(ask, "staff", self.staff)
        return replies


@asynccontextmanager
async def open_bank(
    folder: Path,
    stores: Stores,
    provider: TracerProvider,
    *,
    more: Mapping[str, Any] = MappingProxyType({}),
    more_of_staff: Mapping[str, Any] = MappingProxyType({}),
    trusted: ssl.SSLContext | bool = True,
) -> AsyncGenerator[Bank]:
    """Serve both services over these stores; `more` are settings of both, `trusted` is for their clients."""
    token, file = key_and_token(folder)
    auth = AuthSettings(issuer=ISSUER, public_key_file=file)
    shared: dict[str, Any] = {
        "auth": auth,
        "bank_file": SAMPLE_BANK,
        "data_dir": folder / "data",
        "redis_url": SecretStr(stores.redis.url),
        "weights_dir": stores.weights,
        **more,
    }
    of_chat: dict[str, Any] = {
        "audit_key": SecretStr("a key for the tests"),
        # Thresholds that always let the model answer.
        "turn": TurnSettings(answerability=AnswerabilitySettings(threshold=0, least_dense=-1)),
        "llm_urls": stores.model.url,
        "llm_profile": "scripted",
        "ledger": LedgerSettings(limits=LimitSettings(user=OFTEN)),
    }
    chat_settings = ChatSettings(**{**of_chat, **shared})
    staff_settings = StaffSettings(**{**shared, **more_of_staff})
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        engine, staff_engine = (
            impatient(open_engine(url, chat_settings.database_tls))
            for url in (stores.database_url, stores.staff_database_url or stores.database_url)
        )
        for one in (engine, staff_engine):
            stack.push_async_callback(close_engine, one)
        index = await enter(open_index(stores.index, stores.embedder, stores.terms))
        staff = await enter(open_staff(staff_settings, index=index, engine=staff_engine, parser=stores.readers))
        chat = await enter(open_chat(chat_settings, engine=engine, index=index))
        chat_app = create_chat_app(chat, tracer_provider=provider)
        staff_app = create_staff_app(staff, chat.banks, tracer_provider=provider)

        def headers(sub: str, *roles: str) -> dict[str, str]:
            return {"authorization": f"Bearer {token(sub, *roles)}"}

        apis: list[Api] = []
        for app in (chat_app, staff_app):
            bound = bind("127.0.0.1", 0)
            stack.callback(bound.close)
            certificate = chat_settings.server_tls
            await enter(listening(app, bound, certificate=certificate))
            url = f"{certificate.scheme}://127.0.0.1:{bound.getsockname()[1]}"
            client = await enter(httpx2.AsyncClient(base_url=url, timeout=20, verify=trusted))
            apis.append(Api(app=app, http=client, headers=headers))
        yield Bank(chat=apis[0], staff=apis[1], stores=stores)


def impatient(engine: AsyncEngine) -> AsyncEngine:
    """Shorten SQLite's wait for a lock, which these tests don't measure."""

    def shorten(connection: Any, _entry: ConnectionPoolEntry) -> None:
        if engine.dialect.name == "sqlite":
            cursor = connection.cursor()
            cursor.execute("PRAGMA busy_timeout=50")
            cursor.close()

    event.listen(engine.sync_engine, "connect", shorten)
    return engine
