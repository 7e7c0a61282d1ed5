"""Anchored heads show a database that was rewritten with the right key, in both stores."""

import os
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from uuid import uuid4

import anyio
import msgspec
import pytest
from s3fs import S3FileSystem
from sqlalchemy import insert, select, text
from sqlalchemy.ext.asyncio import AsyncEngine

from chatbot.audit.anchors import Anchors, AnchorStore, AnchorsUnavailable, FolderAnchors, open_anchors
from chatbot.audit.chain import GENESIS, seal
from chatbot.audit.trail import AUDIT, Audit, open_audit, row_of
from tests.audit import CLOSED, OPENED, SETTINGS, answer
from tests.clock import Clock
from tests.s3 import s3_in_the_environment

pytestmark = pytest.mark.anyio

DAY = 86_400.0
MONDAY = 20_000 * DAY + 3600  # 2024-10-04


@pytest.fixture(scope="module")
def s3() -> Iterator[None]:
    with s3_in_the_environment():
        yield


@pytest.fixture
def store(tmp_path: Path) -> AnchorStore:
    return open_anchors(f"file://{tmp_path}/anchors")


@pytest.fixture
def bucket(s3: None) -> AnchorStore:  # noqa: ARG001  it sets the environment
    name = f"bank-{uuid4().hex}"
    S3FileSystem(skip_instance_cache=True).mkdir(name)
    return open_anchors(f"s3://{name}/audit")


@pytest.fixture
def clock() -> Clock:
    return Clock(MONDAY)


@pytest.fixture
def anchors(audit: Audit, store: AnchorStore, clock: Clock) -> Anchors:
    return Anchors(audit, store, now=clock)


async def faults(anchors: Anchors) -> list[str]:
    return [problem.fault for problem in await anchors.verify(unclosed_before=0)]


async def rewrite(engine: AsyncEngine, audit: Audit, sequence: int, *, was: str, now: str) -> None:
    """Change a row and sign the chain anew from there on, as the owner of the database and the key can."""
    async with engine.begin() as connection:
        rows = [row_of(row) for row in await connection.execute(select(AUDIT).order_by(AUDIT.c.sequence))]
        await connection.execute(text("DELETE FROM chatbot_audit"))
        head = GENESIS
        for row in rows:
            body = row.body.replace(was, now) if row.sequence == sequence else row.body
            entry = msgspec.json.decode(body.encode(), type=type(row.entry()))
            sealed = seal(entry, head, audit.keys)
            head = sealed.hmac
            await connection.execute(insert(AUDIT), asdict(sealed))


async def test_a_day_is_anchored_once_with_new_heads_only(anchors: Anchors, audit: Audit, clock: Clock) -> None:
    await answer(audit, "a1")
    assert await anchors.anchor() == "2024-10-04.json"
    await answer(audit, "a2")
    assert await anchors.anchor() is None
    clock.now += DAY
    assert await anchors.anchor() == "2024-10-05.json"
    clock.now += DAY
    assert await anchors.anchor() == "2024-10-06.json"  # no question was asked that day: its anchor says so
    anchored = await anchors.read()
    assert [head.sequence for head in anchored.heads_since(0)] == [2, 4]
    first, second = (at for at, _ in anchored.heads)
    assert [len(anchored.heads_since(at)) for at in (first, second, second + 0.001)] == [2, 1, 0]
    assert anchored.at == clock.now
    assert await faults(anchors) == []


@pytest.mark.parametrize("place", ["store", "bucket"])
async def test_a_file_is_never_written_twice(request: pytest.FixtureRequest, place: str) -> None:
    store: AnchorStore = request.getfixturevalue(place)
    assert store.write_once("2024-10-04.json", b"first")
    assert not store.write_once("2024-10-04.json", b"second")
    assert store.read("2024-10-04.json") == b"first"
    assert store.names() == ["2024-10-04.json"]


@pytest.mark.usefixtures("s3")
async def test_a_missing_bucket_is_an_error_and_no_existing_anchor() -> None:
    with pytest.raises(OSError, match="bucket"):
        open_anchors("s3://no-such-bucket/audit").write_once("2026-09-30-w.json", b"{}")


async def test_two_replicas_make_one_anchor(engine: AsyncEngine, store: AnchorStore, clock: Clock) -> None:
    names: list[str | None] = []
    async with open_audit(engine, SETTINGS) as first, open_audit(engine, SETTINGS) as second:
        await answer(first, "a1")
        await answer(second, "a2")

        async def anchor(audit: Audit) -> None:
            names.append(await Anchors(audit, store, now=clock).anchor())

        async with anyio.create_task_group() as group:
            group.start_soon(anchor, first)
            group.start_soon(anchor, second)
        assert sorted(names, key=str) == ["2024-10-04.json", None]
        anchors = Anchors(first, store, now=clock)
        assert len((await anchors.read()).heads) == 2
        assert await faults(anchors) == []


async def test_a_chain_rewritten_with_the_right_key_is_found(
    anchors: Anchors, audit: Audit, engine: AsyncEngine, clock: Clock
) -> None:
    await answer(audit, "a1", "a2")
    await anchors.anchor()
    await answer(audit, "a3")
    await rewrite(engine, audit, 2, was='"grounded":true', now='"grounded":false')
    assert await audit.verify(unclosed_before=0) == []  # the chain itself is whole
    assert await faults(anchors) == ["edited"]
    clock.now += DAY
    await anchors.anchor()  # a forged anchor: another HMAC under the same number
    assert await faults(anchors) == ["edited"]


async def test_a_chain_that_was_cut_or_removed_is_found(anchors: Anchors, audit: Audit, engine: AsyncEngine) -> None:
    await answer(audit, "a1", "a2")
    await anchors.anchor()
    for cut in (2, 0):
        async with engine.begin() as connection:
            await connection.execute(AUDIT.delete().where(AUDIT.c.sequence > cut))
        assert await audit.verify(unclosed_before=0) == []
        assert await faults(anchors) == ["truncated"]


async def problems(anchors: Anchors, *, since: float) -> list[tuple[str, str]]:
    return [(p.fault, p.answer_id) for p in await anchors.verify(unclosed_before=since + 9 * DAY, since=since)]


async def test_rows_remaining_after_a_prune_verify(engine: AsyncEngine, store: AnchorStore, clock: Clock) -> None:
    async with open_audit(engine, SETTINGS) as old, open_audit(engine, SETTINGS) as long:
        anchors = Anchors(old, store, now=clock)
        await answer(old, "old-1", "old-2", at=MONDAY)
        await answer(long, "long-1", at=MONDAY)
        # Its other row is of a chain that goes on, as where a replica took it over.
        await old.open(replace(OPENED, answer_id="taken", at=MONDAY))
        await long.close(replace(CLOSED, answer_id="taken", at=MONDAY + 1))
        await anchors.anchor()
        clock.now += 40 * DAY
        await answer(long, "long-2", at=clock.now)
        await anchors.anchor()
        since = clock.now - 30 * DAY
        assert await anchors.prune(before=MONDAY - DAY) == 0, "nothing is as old"
        assert await problems(anchors, since=since) == []
        assert await anchors.prune(before=since) == 5
        assert await problems(anchors, since=since) == []
        async with engine.connect() as connection:
            left = (await connection.execute(select(AUDIT.c.answer_id).distinct())).scalars().all()
        assert sorted(left) == ["long-1", "long-2", "taken"], "a chain that goes on is kept from its first row"
        found = await problems(anchors, since=0)
        assert sorted(found) == [("truncated", ""), ("unopened", "taken")], "without a policy nothing may be gone"


async def test_a_missing_young_row_is_found(
    engine: AsyncEngine, audit: Audit, store: AnchorStore, clock: Clock
) -> None:
    anchors = Anchors(audit, store, now=clock)
    await answer(audit, "a1", at=MONDAY)
    clock.now += 9 * DAY  # nothing was anchored meanwhile
    await anchors.anchor()
    since = MONDAY + 5 * DAY
    assert await anchors.prune(before=since) == 0, "its anchor is younger"
    async with engine.begin() as connection:
        await connection.execute(text("DELETE FROM chatbot_audit"))
    assert await problems(anchors, since=since) == [("truncated", "")]


async def test_an_anchor_that_was_changed_or_taken_away_is_found(audit: Audit, tmp_path: Path, clock: Clock) -> None:
    anchors = Anchors(audit, FolderAnchors(tmp_path), now=clock)
    for name in ("a1", "a2", "a3"):
        await answer(audit, name)
        await anchors.anchor()
        clock.now += DAY
    middle = tmp_path / "2024-10-05.json"
    assert not os.access(middle, os.W_OK) or os.geteuid() == 0  # root may write everything
    assert middle.stat().st_mode & 0o222 == 0
    whole = middle.read_bytes()
    middle.unlink()
    assert await faults(anchors) == ["anchor"]
    middle.write_bytes(whole.replace(b"1728", b"1729"))
    assert await faults(anchors) == ["anchor"]
    middle.write_bytes(b"{}")
    assert await faults(anchors) == ["anchor", "anchor"]


async def test_a_missing_anchor_store_is_reported(audit: Audit, tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(AnchorsUnavailable):
        await Anchors(audit, FolderAnchors(tmp_path / "file"), now=clock).anchor()
    reported: list[float] = []
    with anyio.move_on_after(0.5):
        await Anchors(audit, FolderAnchors(tmp_path / "file"), now=clock).anchor_daily(reported.append)
    assert reported == [1.0]
    with pytest.raises(ValueError, match="file:///folder or s3://bucket/prefix"):
        open_anchors("ftp://elsewhere")
