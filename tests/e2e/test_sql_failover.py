"""PostgreSQL fails over to its replica behind one address: what customers read meanwhile, and what is lost."""

import asyncio
import shutil
import signal
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import msgspec
import pytest
from pydantic import SecretStr

from chatbot.api import LocalSigner, key_pair
from chatbot.audit import Audit, AuditSettings, ChainProblem, Closed, Opened
from knowledge.storage import open_engine
from tests.e2e import model
from tests.e2e.cluster import NEEDS_HAPROXY, Server, api
from tests.e2e.conftest import (
    AUDIT_KEY,
    ENGLISH,
    KOREAN,
    TENANT,
    chat_environment,
    copy_loaded,
    new_customer,
    scripted_model,
    signed_in,
    signed_token,
    until,
)
from tests.e2e.events import SentEvent, end_of, read_events, text_of
from tests.e2e.switch import Switch
from tests.patience import patient
from tests.postgres import SHARED, Postgres, served, standby_of

pytestmark = [pytest.mark.anyio, pytest.mark.e2e, pytest.mark.faults, pytest.mark.long, NEEDS_HAPROXY]

STREAMS = {"wal_level": "replica", "max_wal_senders": "4", "fsync": "on", "synchronous_commit": "on"}
AWAY_SECONDS = 8.0
"""Longer than withdrawals may be unreadable: then nobody knows what is allowed to be said."""


@dataclass
class Bank:
    """A chat API over a PostgreSQL with a replica, behind one address that leads to the primary."""

    server: Server
    signer: LocalSigner
    model_url: str
    primary: Postgres
    standby: Postgres
    switch: Switch
    read: list[list[SentEvent]] = field(default_factory=list)
    """What customers have read to the end."""

    def client(self, who: str) -> httpx2.AsyncClient:
        return signed_in(self.server.url, signed_token(self.signer, who, tenant=TENANT, role="customer"))

    async def ask(self, question: str = KOREAN) -> httpx2.Response | list[SentEvent]:
        """Return the refusal of a question, or all events of its answer."""
        asked = {"message": question}
        async with self.client(new_customer()) as http, http.stream("POST", "/v1/chat", json=asked) as response:
            if response.status_code != 200:
                await response.aread()
                return response
            self.read.append([event async for event in read_events(response)])
        return self.read[-1]

    async def answered(self) -> bool:
        """Return whether a question is answered from its documents."""
        events = await self.ask()
        return isinstance(events, list) and end_of(events).field("finish_reason") == "stop"

    def follows(self) -> bool:
        return self.primary.query("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'").strip() == "1"

    def lose_primary(self) -> None:
        self.primary.kill()
        self.switch.hide(0)

    def promote(self) -> None:
        self.standby.query("SELECT pg_promote()")
        self.switch.lead_to(1)

    def entries(self) -> dict[str, list[type]]:
        """Return the kinds of audit entries of each answer, as the new primary has them."""
        kinds: defaultdict[str, list[type]] = defaultdict(list)
        for body in self.standby.query("SELECT body FROM chatbot_audit ORDER BY at").splitlines():
            entry = msgspec.json.decode(body, type=Opened | Closed)
            kinds[entry.answer_id].append(type(entry))
        return kinds

    async def problems(self) -> list[ChainProblem]:
        """Return what `chatbot audit verify` finds on the new primary."""
        engine = open_engine(self.standby.url(SHARED))
        try:
            return await Audit(engine, AuditSettings(key=SecretStr(AUDIT_KEY))).verify(unclosed_before=time.time())
        finally:
            await engine.dispose()


@contextmanager
def bank(folder: Path, redis_url: str, **settings: str) -> Iterator[Bank]:
    """Serve the chat API with the documents loaded, over a primary with these settings and its standby."""
    data = folder / "data"
    private, public = key_pair(data)
    with ExitStack() as stack:
        enter = stack.enter_context
        primary = enter(served(**STREAMS, **settings))
        standby = enter(standby_of(primary, **STREAMS))
        switch = Switch(f"unix@{primary.socket}", f"unix@{standby.socket}", folder, "sql-switch")
        stack.callback(switch.stop)
        address = f"postgresql+asyncpg://{primary.user}@127.0.0.1:{switch.port}/{SHARED}"
        own = {"DATA_DIR": str(data), "DATABASE_URL": address}
        copy_loaded(folder.parent, data)
        model_settings = enter(scripted_model(folder))
        server = api(data, chat_environment(public, redis_url, **own, **model_settings))
        stack.callback(shutil.rmtree, data)
        stack.callback(server.stop, signal.SIGKILL)
        server.start()
        server.wait()
        signer = LocalSigner(private.read_text("ascii"))
        yield Bank(server, signer, model_settings["LLM_URLS"], primary, standby, switch)


async def test_a_failover_of_sql_hands_customers_over_and_loses_no_record(tmp_path: Path, redis_url: str) -> None:
    """A primary that confirms what its replica has (`synchronous_standby_names`)."""
    with bank(tmp_path, redis_url, synchronous_standby_names="*") as running:
        await until(running.follows, 10)
        await model.tell(running.model_url, token_seconds=0.03, probe=0.99)
        async with asyncio.TaskGroup() as asking:
            asking.create_task(running.ask())  # it runs while the primary is lost
            await until(lambda: model.running(running.model_url), 10)
            running.lose_primary()
            lost_at = time.monotonic()
            for question, person in ((KOREAN, "상담원"), (ENGLISH, "speak with a person")):
                began = time.monotonic()
                refusal = await running.ask(question)
                assert time.monotonic() - began < patient(2)
                assert isinstance(refusal, httpx2.Response)
                assert (refusal.status_code, refusal.json()["code"]) == (503, "audit_unavailable")
                assert person in refusal.json()["handoff"]
                assert "1599-0000" in refusal.json()["handoff"]
            await asyncio.sleep(AWAY_SECONDS - (time.monotonic() - lost_at))
        await asyncio.to_thread(running.promote)
        await until(running.answered, 10)
        assert end_of(running.read[0]).name == "done"
        assert text_of(running.read[0])
        read = {events[0].answer_id: [Opened, Closed] for events in running.read}

        def recorded() -> bool:
            return read.items() <= running.entries().items()

        await until(recorded, 10)
        assert await running.problems() == []


async def test_rows_that_a_promoted_sql_replica_lacks_are_reported_by_the_audit(tmp_path: Path, redis_url: str) -> None:
    """Replication without waiting: the opening of an answer that runs is lost with the primary, and its end is not."""
    with bank(tmp_path, redis_url) as running:
        await until(running.follows, 10)
        assert await running.answered()
        await until(lambda: len(running.entries()[running.read[0][0].answer_id]) == 2, 10)
        running.standby.query("ALTER SYSTEM SET primary_conninfo = ''")
        running.standby.query("SELECT pg_reload_conf()")
        await until(lambda: not running.follows(), 10)
        assert await running.answered()
        await model.tell(running.model_url, token_seconds=0.05, probe=0.99)
        async with asyncio.TaskGroup() as asking:
            asking.create_task(running.ask())
            await until(lambda: model.running(running.model_url), 10)
            running.lose_primary()
            await asyncio.to_thread(running.promote)
        await until(running.answered, 10)
        before, forgotten, half, *after = (events[0].answer_id for events in running.read)
        await until(lambda: len(running.entries()[half]) == 1, 10)
        entries = running.entries()
        assert [entries[name] for name in (before, forgotten, half)] == [[Opened, Closed], [], [Closed]]
        assert all(entries[name] == [Opened, Closed] for name in after)
        problems = [(problem.fault, problem.answer_id) for problem in await running.problems()]
        assert ("unopened", half) in problems
