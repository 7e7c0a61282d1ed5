"""A document that staff withdraw stops answering within 5 s on every replica, even where its index still holds it;
a machine whose key is revoked is let in no more within 5 s by any replica of either service.

Each replica has a copy of the embedded index, which only one process may open, and the staff API a third, the only one
that the decision changes: the withdrawal reaches the replicas through SQL. With one index for all, as on a Qdrant
server, every search after the decision goes without the document (tests/ingest/catalogue/test_approvals.py).
"""

import asyncio
import contextlib
import shutil
import signal
import sqlite3
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import httpx2
import pytest

from tests.conftest import free_port
from tests.e2e.cluster import NEEDS_HAPROXY, Cluster, Server, clustered
from tests.e2e.conftest import KOREAN, new_customer, until
from tests.e2e.events import SentEvent, text_of
from tests.forked import Forked
from tests.patience import patient

pytestmark = [pytest.mark.anyio, pytest.mark.e2e, pytest.mark.faults, NEEDS_HAPROXY]

REVOKED_SECONDS = 5.0
TRANSFER = "How much does an overseas transfer cost?"
SENTENCE = "만기 전에 해지하면 중도해지 금리 연 0.5%를 적용합니다. 샘물 정기예금의 기본 금리는 연 3.1%입니다. "
FEE = "An overseas transfer costs 8,000 won for each transfer up to USD 5,000."


@dataclass(frozen=True, kw_only=True)
class Bank:
    """The replicas, and the staff API beside them."""

    cluster: Cluster
    staff: Server

    @asynccontextmanager
    async def approver(self) -> AsyncGenerator[httpx2.AsyncClient]:
        async with self.cluster.client("lee", url=self.staff.url, role="approver") as http:
            yield http

    async def ask(self, replica: Server, message: str) -> list[SentEvent]:
        async with self.cluster.client(new_customer(), url=replica.url) as http:
            return await self.cluster.ask(http, message)

    async def has_models(self) -> bool:
        """Return whether a model answers every replica."""
        answers = [await self.ask(replica, TRANSFER) for replica in self.cluster.replicas]
        return not any("notice" in {event.name for event in events} for events in answers)

    async def without_models(self, message: str) -> list[list[SentEvent]]:
        """Return what each replica answers while every model is away."""
        await self.cluster.tell(dead=True)
        answers = [await self.ask(replica, message) for replica in self.cluster.replicas]
        await self.cluster.restore()
        return answers

    async def answered_from(self, document_id: str, message: str) -> bool:
        """Return whether any replica still answers from a document."""
        answers = [await self.ask(replica, message) for replica in self.cluster.replicas]
        return any(document_id in sources(events) for events in answers)


def sources(events: list[SentEvent]) -> str:
    return "".join(event.data.decode() for event in events if event.name in {"sources", "citation"})


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[Bank]:
    folder = tmp_path_factory.mktemp("revocation")
    url = f"{redis_url.removesuffix('/0')}/8"
    with clustered(folder, url, TURN__ANSWER="written") as cluster:
        third, port = folder / "third", free_port()
        shutil.copytree(folder / "first" / "qdrant", third / "qdrant")
        mine = {"DATA_DIR": str(third), "INGEST_PORT": str(port)}
        mine["BLOB_URL"] = f"file://{folder / 'first' / 'blobs'}"
        staff = Server(
            begin=lambda: Forked("ingest.__main__", ["serve"], cluster.environment | mine, folder / "staff.log"),
            port=port,
            log=folder / "staff.log",
            ready="/readyz",
        )
        staff.start()
        staff.wait()
        yield Bank(cluster=cluster, staff=staff)
        staff.stop(signal.SIGKILL)


@pytest.mark.fresh
async def test_running_streams_new_questions_and_earlier_answers_end_within_five_seconds(bank: Bank) -> None:
    cluster, replicas = bank.cluster, bank.cluster.replicas
    await cluster.tell(answer=SENTENCE.strip(), probe=0.99)
    earlier = await bank.ask(replicas[0], KOREAN)
    assert earlier[-1].field("written") is True
    document_id = str(next(event for event in earlier if event.name == "citation").field("document_id"))
    for again in await bank.without_models(KOREAN):
        assert document_id in sources(again), "what is to end has not begun"
    await until(bank.has_models, 15)
    await cluster.tell(answer=SENTENCE * 12, probe=0.99, token_seconds=0.1)  # far longer than the bar
    streams: list[list[SentEvent]] = [[], []]

    async def follow(replica: Server, events: list[SentEvent]) -> None:
        async with cluster.client(new_customer(), url=replica.url) as http:
            await cluster.follow(http, events, message=KOREAN)

    async with asyncio.TaskGroup() as following:
        for replica, events in zip(replicas, streams, strict=True):
            following.create_task(follow(replica, events))
        await until(lambda: all("citation" in {event.name for event in events} for events in streams), 20)
        began = time.monotonic()
        async with bank.approver() as http:
            reply = await http.post(f"/v1/documents/{document_id}/versions/1/expire", json={"reason": "wrong rate"})
        assert (reply.status_code, reply.json()["state"]) == (200, "expired")
    assert time.monotonic() - began <= patient(REVOKED_SECONDS), "the last stream ended later"
    for events in streams:
        assert events[-1].field("finish_reason") == "handoff"
        assert text_of(events).count(SENTENCE.strip()) < 12
    assert not await bank.answered_from(document_id, KOREAN)
    for again in await bank.without_models(KOREAN):
        assert text_of(earlier) not in text_of(again)
        assert document_id not in sources(again)
    assert time.monotonic() - began <= patient(REVOKED_SECONDS)
    await until(bank.has_models, 15)


@pytest.mark.fresh
async def test_a_deleted_document_answers_no_more_within_five_seconds(bank: Bank) -> None:
    await bank.cluster.tell(answer=FEE, probe=0.99)
    answer = await bank.ask(bank.cluster.replicas[0], TRANSFER)
    document_id = str(next(event for event in answer if event.name == "citation").field("document_id"))
    async with bank.approver() as http:
        began = time.monotonic()
        versions = (await http.delete(f"/v1/documents/{document_id}")).json()["versions"]
        assert {version["state"] for version in versions} == {"withdrawn"}
        shown = (await http.get("/v1/search", params={"q": TRANSFER})).json()["hits"]
        assert document_id not in {hit["passage"]["document_id"] for hit in shown}

    async def ended() -> bool:
        return not await bank.answered_from(document_id, TRANSFER)

    await until(ended, REVOKED_SECONDS)
    assert time.monotonic() - began <= patient(REVOKED_SECONDS)
    await bank.cluster.restore()


def command(bank: Bank, folder: Path, *arguments: str) -> str:
    """Run `chatbot keys …` beside the replicas and return what it prints."""
    printed = folder / uuid4().hex
    mine = bank.cluster.environment | {"DATA_DIR": str(folder)}
    ended = Forked("chatbot.__main__", ["keys", *arguments], mine, printed).wait(60)
    assert ended == 0, printed.read_text("utf-8")
    return printed.read_text("utf-8")


async def test_a_revoked_key_is_refused_by_all_within_five_seconds(bank: Bank, tmp_path: Path) -> None:
    cluster = bank.cluster
    options = ("--tenant", "hanbit", "--by", "park", "--role", "service", "--role", "staff", "--days", "7")
    made = await asyncio.to_thread(command, bank, tmp_path, "create", "the nightly batch", *options)
    key = next(line for line in made.splitlines() if line.startswith("bck_"))
    key_id, secret = key[4:20], key[21:]
    addresses = [f"{replica.url}/v1/limits" for replica in cluster.replicas] + [f"{bank.staff.url}/v1/documents"]
    headers = {"authorization": f"Bearer {key}"}
    async with httpx2.AsyncClient(timeout=30) as http:

        async def statuses() -> set[int]:
            return {(await http.get(address, headers=headers)).status_code for address in addresses}

        async def let_in() -> bool:
            return await statuses() == {200}

        async def refused() -> bool:
            return await statuses() == {401}

        await until(let_in, REVOKED_SECONDS)
        asked = await http.post(f"{cluster.replicas[1].url}/v1/chat", json={"message": TRANSFER}, headers=headers)
        assert asked.status_code == 200, asked.text
        (row,) = audited_of(cluster.database, f"service:{key_id}")
        assert f'"sub":"service:{key_id}"' in row, "every use is attributed"

        async with cluster.client("kim", url=cluster.replicas[0].url, role="admin") as admin:
            began = time.monotonic()
            revoked = await admin.delete(f"/v1/admin/keys/{key_id}")
            assert (revoked.status_code, revoked.json()["revoked_by"]) == (200, "hanbit/kim")
        await until(refused, REVOKED_SECONDS)
        assert time.monotonic() - began <= patient(REVOKED_SECONDS)
    logs = [bank.staff.log, *(replica.log for replica in cluster.replicas)]
    texts = [await asyncio.to_thread(log.read_text, "utf-8") for log in logs]
    assert any("service_key_revoked" in text for text in texts)
    assert not any(secret in text for text in texts)


def audited_of(database: Path, sub: str) -> list[str]:
    """Return the bodies of the audit rows that open a subject's answers."""
    query = "SELECT body FROM chatbot_audit WHERE kind = 'opened' AND body LIKE ?"
    with contextlib.closing(sqlite3.connect(database, timeout=10)) as sql:
        return [body for (body,) in sql.execute(query, (f"%{sub}%",))]
