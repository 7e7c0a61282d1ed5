"""The restores of docs/backup.md: Redis from a copy of its files while it runs, PostgreSQL from a dump."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import pytest
from redis import Redis

from chatbot.audit import Audit, open_audit
from chatbot.tables import SCHEMA
from ingest import catalogue
from knowledge import withdrawals
from knowledge.storage import migrate_database, open_engine
from tests.audit import SETTINGS, answer, faults
from tests.conftest import DURABLE, redis_server
from tests.postgres import Postgres

BACKUP = (Path(__file__).parents[2] / "docs/backup.md").read_text("utf-8")
# Stand-ins for the cluster's programs: a pod's commands run here, on the folder and port of the server under test.
KUBECTL = """#!/bin/bash
while [ "$1" != -- ]; do shift; done
shift
exec "${@/#\\/data/$DATA}"
"""
VALKEY_CLI = """#!/usr/bin/python3
import os, socket, sys
with socket.create_connection(("127.0.0.1", int(os.environ["PORT"]))) as server, server.makefile("rb") as replies:
    server.sendall(" ".join(sys.argv[1:]).encode() + b"\\r\\n")
    first = replies.readline().decode()
    print(replies.read(int(first[1:])).decode() if first[0] == "$" else first)
"""


def documented_commands() -> str:
    """Return the page's commands that copy Redis."""
    block = re.search(r"^## Redis\n.*?^```sh\n(.*?)^```", BACKUP, re.MULTILINE | re.DOTALL)
    assert block
    return block[1]


@pytest.fixture
def cluster(tmp_path: Path) -> Path:
    """A folder of programs that stand in for the cluster's."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, text in (("kubectl", KUBECTL), ("valkey-cli", VALKEY_CLI)):
        (programs / name).write_text(text, "utf-8")
        (programs / name).chmod(0o755)
    return programs


@contextmanager
def continuous_writes(port: int) -> Iterator[None]:
    """Write to Redis as long as the block runs."""
    stop = Event()

    def write() -> None:
        with Redis(port=port) as redis:
            while not stop.is_set():
                redis.rpush("meanwhile", "x" * 1000)

    writer = Thread(target=write)
    writer.start()
    try:
        yield
    finally:
        stop.set()
        writer.join()


def test_redis_is_restored_from_the_documented_copy_of_its_files_while_it_runs(tmp_path: Path, cluster: Path) -> None:
    old = tmp_path / "old"
    with (
        redis_server(old, *DURABLE) as server,
        Redis(port=server.port, decode_responses=True) as redis,
        continuous_writes(server.port),
    ):
        redis.mset({f"answer:{n}": f"event {n}" for n in range(1000)})
        redis.config_set("rdb-key-save-delay", 2000)  # so that this rewrite runs for two seconds
        redis.bgrewriteaof()
        assert redis.info("persistence")["aof_rewrite_in_progress"] == 1
        redis.set("before", "the copy")
        variables = {
            "PATH": f"{cluster}:/usr/bin:/bin",
            "DATA": str(old),
            "PORT": str(server.port),
            "REDIS_PASSWORD": "",
        }
        command = ["/bin/bash", "-euo", "pipefail", "-c", documented_commands()]
        subprocess.run(command, cwd=tmp_path, env=variables, check=True, timeout=60)  # noqa: S603
        assert redis.config_get("auto-aof-rewrite-percentage") == {"auto-aof-rewrite-percentage": "100"}
    new = tmp_path / "new"
    new.mkdir()
    shutil.unpack_archive(tmp_path / "redis.tar", new, filter="data")
    bases = [path.name for path in (new / "appendonlydir").glob("*.base.*")]
    assert bases == ["appendonly.aof.2.base.rdb"], "the rewrite had not ended"
    with redis_server(new, *DURABLE) as server, Redis(port=server.port, decode_responses=True) as redis:
        assert redis.mget("answer:0", "answer:999", "before") == ["event 0", "event 999", "the copy"]
        assert redis.llen("meanwhile") > 0


@pytest.mark.anyio
async def test_postgresql_is_restored_from_a_dump_with_every_audit_row(postgres: Postgres) -> None:
    schemas = (withdrawals.SCHEMA, catalogue.SCHEMA, SCHEMA)
    with postgres.database() as lost, postgres.database() as restored:
        revisions = await migrate_database(postgres.url(lost), *schemas)
        engine = open_engine(postgres.url(lost))
        async with open_audit(engine, SETTINGS) as audit:
            await answer(audit, "a1", "a2", "a3")
        await engine.dispose()
        dump = postgres.run("pg_dump", "-Fc", lost)
        postgres.run("pg_restore", "-d", restored, "--clean", "--if-exists", data=dump)
        assert await migrate_database(postgres.url(restored), *schemas) == revisions
        engine = open_engine(postgres.url(restored))
        audit = Audit(engine, SETTINGS)
        assert [len(await audit.rows(name)) for name in ("a1", "a2", "a3")] == [2, 2, 2]
        assert await faults(audit, unclosed_before=1e12) == []
        await engine.dispose()
