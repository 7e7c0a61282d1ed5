"""`chatbot replay` of a served product's answers."""

import contextlib
import json
import shutil
import sqlite3
from functools import partial
from pathlib import Path
from uuid import uuid4

import anyio
import httpx2
import pytest

from tests.collector import collecting
from tests.e2e.conftest import KOREAN, Product, until
from tests.e2e.events import SentEvent
from tests.forked import Forked
from tests.ocsf import valid_event

pytestmark = [pytest.mark.anyio, pytest.mark.e2e]

FOLLOW_UP = "그럼 기본 금리는 얼마인가요?"
ALL = {"rows", "question", "passages", "prompt", "screening", "answer", "grounded"}


def admin(product: Product, tenant: str = "hanbit") -> httpx2.AsyncClient:
    return product.client("root", tenant=tenant, role="admin")


async def replayed(product: Product, answer_id: object, *, question: str | None = None) -> dict[str, str]:
    """Return each finding's standing."""
    async with admin(product) as http:
        reply = await http.post(f"/v1/admin/answers/{answer_id}/replay", json={"question": question})
        assert reply.status_code == 200, reply.text
        return {finding["what"]: finding["standing"] for finding in reply.json()["findings"]}


async def conversation(product: Product, http: httpx2.AsyncClient) -> tuple[list[SentEvent], list[SentEvent]]:
    """Ask a question and one that goes on from it."""
    first = await product.ask(http, KOREAN)
    return first, await product.ask(http, FOLLOW_UP, conversation_id=first[0].field("conversation_id"))


async def test_an_answer_is_replayed_until_its_conversation_is_deleted(product: Product) -> None:
    async with product.client(uuid4().hex) as http:
        first, second = await conversation(product, http)
        for events in (first, second):
            standings = await replayed(product, events[0].field("answer_id"))
            assert standings == dict.fromkeys(ALL, "same")
        deleted = await http.delete(f"/v1/conversations/{first[0].field('conversation_id')}")
        assert deleted.status_code == 204
    standings = await replayed(product, first[0].field("answer_id"))
    assert (standings["rows"], standings["passages"]) == ("same", "same")
    assert {standings[part] for part in ("question", "prompt", "answer")} == {"gone"}
    brought = await replayed(product, first[0].field("answer_id"), question=KOREAN)
    assert {brought[part] for part in ("question", "prompt")} == {"same"}
    assert (await replayed(product, first[0].field("answer_id"), question=FOLLOW_UP))["question"] == "differs"


async def test_the_audit_is_anchored_and_verified_by_command(product: Product, tmp_path: Path) -> None:
    # The served process anchors by itself, beside its database.
    await until(lambda: list((product.data / "anchors").glob("*.json")), 15)
    status, printed = run(product, tmp_path / "verified", "audit", "verify")
    assert (status, printed) == (0, "no problems\n")
    with contextlib.closing(sqlite3.connect(product.data / "bank.db", timeout=10)) as sql:
        writer, sequence, hmac = sql.execute("SELECT writer, sequence, hmac FROM chatbot_audit LIMIT 1").fetchone()
    head = {"writer": writer, "sequence": sequence, "hmac": hmac[::-1]}
    (tmp_path / "elsewhere").mkdir()
    anchor = tmp_path / "elsewhere" / "2026-01-01.json"
    anchor.write_text(json.dumps({"at": 1_767_225_600.0, "previous": "", "heads": [head]}), "utf-8")
    async with collecting() as collector:
        settings = {"AUDIT_ANCHORS": f"file://{tmp_path}/elsewhere", "TRACES__OTLP_ENDPOINT": collector.url}
        verify = partial(run, product, tmp_path / "found", "audit", "verify", **settings)
        status, printed = await anyio.to_thread.run_sync(verify)
    assert status == 1
    assert "the row had another HMAC when it was anchored" in printed
    events = [valid_event(line) for line in collector.lines]
    assert {event["metadata"]["event_code"] for event in events} == {"audit_differs"}
    assert "edited" in {event["resources"][0]["uid"] for event in events}


async def test_audit_rows_are_removed_by_a_policy_only(product: Product, tmp_path: Path) -> None:
    status, printed = run(product, tmp_path / "none", "audit", "prune", "--by", "kim")
    assert (status, "AUDIT_KEPT_DAYS is not set" in printed) == (2, True), printed
    async with collecting() as collector:
        settings = {"AUDIT_KEPT_DAYS": "1", "TRACES__OTLP_ENDPOINT": collector.url}
        prune = partial(run, product, tmp_path / "pruned", "audit", "prune", "--by", "kim", **settings)
        assert await anyio.to_thread.run_sync(prune) == (0, "0 rows removed\n")
    (event,) = [valid_event(line) for line in collector.lines]
    assert (event["metadata"]["event_code"], event["actor"]["user"]["uid"]) == ("audit_pruned", "kim")


def run(product: Product, log: Path, *arguments: str, **settings: str) -> tuple[int, str]:
    """Run a `chatbot` command and return its exit status and output."""
    status = Forked("chatbot.__main__", list(arguments), product.environment | settings, log).wait(120)
    return status, log.read_text("utf-8")


async def test_the_replay_command_prints_its_findings_unless_the_index_is_locked(
    product: Product, tmp_path: Path
) -> None:
    async with product.client(uuid4().hex) as http:
        events = await product.ask(http, KOREAN)
    answer_id = str(events[0].field("answer_id"))
    # The served process holds the embedded index: a copy stands for a Qdrant server here.
    shutil.copytree(product.data, tmp_path / "data", ignore=shutil.ignore_patterns(".lock"))
    copied = {"DATA_DIR": str(tmp_path / "data")}
    status, printed = run(product, tmp_path / "own", "replay", answer_id, **copied)
    assert status == 0, printed
    assert "\nsame     prompt " in printed
    status, printed = run(product, tmp_path / "json", "replay", answer_id, "--json", **copied)
    assert (status, {finding["what"] for finding in json.loads(printed)["findings"]}) == (0, ALL), printed
    status, printed = run(product, tmp_path / "held", "replay", answer_id)
    assert status == 2
    assert "cannot be replayed" in printed
