import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import asdict, replace

import anyio
import asyncpg  # type: ignore[import-untyped]  # publishes no types
import pytest
import sqlalchemy.event
import sqlalchemy.exc
from pydantic import SecretStr
from sqlalchemy import Connection, insert, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from chatbot.audit.chain import GENESIS, seal
from chatbot.audit.trail import AUDIT, Audit, AuditSettings, open_audit
from chatbot.errors import AuditUnavailable
from chatbot.records import AnswerResult
from knowledge.storage import UNAVAILABLE, open_engine
from tests.audit import CLOSED, OPENED, SETTINGS, answer, faults

pytestmark = pytest.mark.anyio


async def tamper(engine: AsyncEngine, statement: str) -> None:
    async with engine.begin() as connection:
        await connection.execute(text(statement))


async def until_closed(audit: Audit) -> None:
    with anyio.fail_after(10):
        while await audit.unclosed_rows(older_than=1e12):
            await anyio.sleep(0.01)


async def test_opening_and_closing_twice_change_nothing(audit: Audit) -> None:
    await answer(audit, "a1")
    before = await audit.rows("a1")
    assert (before[0].sequence, before[0].prev_hmac) == (1, GENESIS)
    assert (before[1].sequence, before[1].prev_hmac) == (2, before[0].hmac)
    await audit.open(OPENED)
    await audit.close(replace(CLOSED, result=AnswerResult(error="internal")))
    assert await audit.rows("a1") == before
    assert await faults(audit) == []


@pytest.mark.both_databases
async def test_two_replicas_write_at_once(engine: AsyncEngine) -> None:
    async with (
        open_audit(engine, SETTINGS) as first,
        open_audit(engine, SETTINGS) as second,
        anyio.create_task_group() as group,
    ):
        for n in range(20):
            group.start_soon(answer, first, f"a{n}")
            group.start_soon(answer, second, f"a{n + 10}")  # both write ten of the answers
    async with open_audit(engine, SETTINGS) as audit:
        assert await faults(audit, unclosed_before=1e12) == []
        assert len(await audit.chain_heads()) == 2
        assert sum(head.sequence for head in await audit.chain_heads()) == 60, "two rows an answer"


@pytest.mark.both_databases
async def test_a_row_of_another_replica_fails_no_other_row(audit: Audit, engine: AsyncEngine) -> None:
    inserts = anyio.Event()

    def watch(_: object, __: object, statement: str, *___: object) -> None:
        if statement.startswith("INSERT") and elsewhere.in_transaction():
            inserts.set()

    theirs = seal(OPENED.entry("another replica", 1, audit.keys), GENESIS, audit.keys)
    async with anyio.create_task_group() as group, engine.connect() as elsewhere:
        await elsewhere.execute(insert(AUDIT), asdict(theirs))
        sqlalchemy.event.listen(engine.sync_engine, "before_cursor_execute", watch)
        group.start_soon(audit.open, OPENED)
        group.start_soon(audit.open, replace(OPENED, answer_id="ours"))
        with anyio.fail_after(5):
            await inserts.wait()  # they were looked for, and not found
        await elsewhere.commit()
    sqlalchemy.event.remove(engine.sync_engine, "before_cursor_execute", watch)
    assert [row.writer for row in await audit.rows(OPENED.answer_id)] == ["another replica"]
    assert len(await audit.rows("ours")) == 1
    assert await faults(audit, unclosed_before=0) == []


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("UPDATE chatbot_audit SET body = replace(body, 'qwen', 'other') WHERE sequence = 3", [("edited", 3)]),
        ("UPDATE chatbot_audit SET tenant = 'other' WHERE sequence = 3", [("reordered", 3)]),
        ("UPDATE chatbot_audit SET at = 0 WHERE sequence = 3", [("reordered", 3)]),
        ("UPDATE chatbot_audit SET body = 'none' WHERE sequence = 3", [("edited", 3)]),
        ("UPDATE chatbot_audit SET prev_hmac = hmac WHERE sequence = 3", [("edited", 3)]),
        ("UPDATE chatbot_audit SET hmac = prev_hmac WHERE sequence = 3", [("edited", 3), ("reordered", 4)]),
        ("DELETE FROM chatbot_audit WHERE sequence IN (3, 4)", [("gap", 5)]),
        ("DELETE FROM chatbot_audit WHERE sequence IN (1, 2)", [("gap", 3)]),
        ("DELETE FROM chatbot_audit WHERE sequence = 5", [("gap", 6), ("unopened", 6)]),
        ("UPDATE chatbot_audit SET sequence = sequence + 1 WHERE sequence = 6", [("reordered", 7)]),
    ],
)
async def test_verify_finds_every_edited_moved_or_deleted_row(
    audit: Audit, engine: AsyncEngine, statement: str, expected: list[tuple[str, int]]
) -> None:
    await answer(audit, "a1", "a2", "a3")
    await tamper(engine, statement)
    assert await faults(audit, unclosed_before=0) == expected


async def test_verify_finds_rows_that_changed_places(audit: Audit, engine: AsyncEngine) -> None:
    await answer(audit, "a1", "a2", "a3")
    for before, after in ((3, 99), (5, 3), (99, 5)):
        await tamper(engine, f"UPDATE chatbot_audit SET sequence = {after} WHERE sequence = {before}")  # noqa: S608
    assert await faults(audit) == [("reordered", 3), ("reordered", 4), ("reordered", 5), ("reordered", 6)]


async def test_verify_finds_an_answer_that_nothing_closed(audit: Audit) -> None:
    await audit.open(OPENED)
    assert await faults(audit, unclosed_before=100) == []
    assert await faults(audit, unclosed_before=101) == [("unclosed", 1)]


async def test_another_key_proves_nothing(audit: Audit, engine: AsyncEngine) -> None:
    await answer(audit, "a1")
    forger = Audit(engine, AuditSettings(key=SecretStr("another key for tests")))
    assert {p.fault for p in await forger.verify(unclosed_before=0)} == {"edited"}


@asynccontextmanager
async def locked(database_url: str) -> AsyncGenerator[None]:
    """Lock the audit's table while the block runs."""
    engine = open_engine(database_url)
    lock = "BEGIN IMMEDIATE" if engine.dialect.name == "sqlite" else "LOCK TABLE chatbot_audit IN ACCESS EXCLUSIVE MODE"
    async with engine.begin() as connection:
        await connection.exec_driver_sql(lock)
        yield
    await engine.dispose()


@pytest.mark.both_databases
async def test_without_the_database_it_fails_in_time_and_closes_later(engine: AsyncEngine, database_url: str) -> None:
    impatient = SETTINGS.model_copy(update={"deadline": 0.3})
    async with open_audit(engine, SETTINGS) as audit, open_audit(engine, impatient) as replica:
        await audit.open(OPENED)
        async with locked(database_url):
            began = anyio.current_time()
            with pytest.raises(AuditUnavailable):
                await replica.open(replace(OPENED, answer_id="a2"))
            with pytest.raises(AuditUnavailable):
                await replica.close(CLOSED)
            assert anyio.current_time() - began < 2
        await until_closed(audit)
        # Nothing was written for the answer that was refused, and what was written is whole.
        assert await audit.rows("a2") == ()
        assert await faults(audit, unclosed_before=1e12) == []
        await answer(audit, "a3")
        assert await faults(audit, unclosed_before=1e12) == []


@pytest.mark.both_databases
async def test_after_a_write_of_unknown_outcome_a_new_chain_begins(audit: Audit, engine: AsyncEngine) -> None:
    await answer(audit, "a1")

    def commit_and_say_nothing(connection: Connection) -> None:
        connection.connection.commit()
        raise sqlalchemy.exc.OperationalError("COMMIT", None, ConnectionError("the reply was lost"))

    sqlalchemy.event.listen(engine.sync_engine, "commit", commit_and_say_nothing)
    with pytest.raises(AuditUnavailable):
        await audit.open(replace(OPENED, answer_id="a2"))
    sqlalchemy.event.remove(engine.sync_engine, "commit", commit_and_say_nothing)
    assert len(await audit.rows("a2")) == 1, "it was written all the same"
    await answer(audit, "a2", "a3")
    assert await faults(audit, unclosed_before=1e12) == []
    assert len(await audit.chain_heads()) == 2


@pytest.mark.faults
@pytest.mark.both_databases
@pytest.mark.parametrize("seconds", [1.4, 1.6, 2.2])
async def test_no_opening_of_a_refused_question_stays(engine: AsyncEngine, database_url: str, seconds: float) -> None:
    async with open_audit(engine, AuditSettings(key=SETTINGS.key)) as audit:

        async def ask() -> None:
            try:
                await audit.open(OPENED)
            except AuditUnavailable:
                audit.close_if_opened(replace(CLOSED, result=AnswerResult(error="audit_unavailable")))
            else:
                await audit.close(CLOSED)

        async with anyio.create_task_group() as asking, locked(database_url):
            asking.start_soon(ask)
            await anyio.sleep(seconds)  # the fault itself
        await answer(audit, "a2")  # what was in flight has ended
    assert await faults(audit, unclosed_before=1e12) == []
    assert len(await audit.rows("a1")) in (0, 2)


async def test_a_rejected_opening_is_closed_whenever_it_is_written(audit: Audit, engine: AsyncEngine) -> None:
    await audit.open(OPENED)
    for name in (CLOSED.answer_id, "late", "never opened"):
        audit.close_if_opened(replace(CLOSED, answer_id=name))
    await answer(audit, "a2")
    async with open_audit(engine, SETTINGS) as other:
        await other.open(replace(OPENED, answer_id="late"))
    await answer(audit, "a3")
    await until_closed(audit)
    assert await audit.rows("never opened") == ()
    assert await faults(audit, unclosed_before=1e12) == []


async def test_after_thousands_of_refusals_a_question_is_recorded(audit: Audit) -> None:
    await audit.open(OPENED)
    for n in range(4000):
        audit.close_if_opened(replace(CLOSED, answer_id=f"refused-{n}"))
    audit.close_if_opened(CLOSED)
    await answer(audit, "a2")
    await until_closed(audit)
    assert await faults(audit, unclosed_before=1e12) == []


async def test_a_pending_closing_is_written_although_its_process_is_cancelled(engine: AsyncEngine) -> None:
    with anyio.CancelScope() as process:
        async with open_audit(engine, SETTINGS) as audit:
            await audit.open(OPENED)
            audit.close_if_opened(CLOSED)
            process.cancel()
    async with open_audit(engine, SETTINGS) as audit:
        assert [row.kind for row in await audit.rows(OPENED.answer_id)] == ["opened", "closed"]


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    engine = create_async_engine("postgresql+asyncpg://nobody@127.0.0.1:1/none")
    audit = Audit(engine, SETTINGS)
    for call in (audit.migrate_tables(), audit.rows("a1"), audit.chain_heads(), audit.verify(unclosed_before=0)):
        with pytest.raises(AuditUnavailable):
            await call
    await engine.dispose()


def test_every_error_of_the_drivers_is_translated() -> None:
    bases = (sqlalchemy.exc.SQLAlchemyError, sqlite3.Error, asyncpg.PostgresError, asyncpg.InterfaceError)
    named = [kind for module in (sqlalchemy.exc, sqlite3, asyncpg.exceptions) for kind in vars(module).values()]
    errors = [kind for kind in named if isinstance(kind, type) and issubclass(kind, bases)]
    assert len(errors) > 200
    assert [kind for kind in errors if not issubclass(kind, UNAVAILABLE)] == []
