"""A PostgreSQL server from Debian's package: one per session, with an empty database per test."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from uuid import uuid4

import pytest

START_SECONDS = 60.0
# The data need not survive a crash of the machine; all else is as in production.
SETTINGS = {"listen_addresses": "", "fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
SHARED = "postgres"
UNPRIVILEGED = "postgres"
"""The user that runs the server where root runs the tests: PostgreSQL refuses to run as root."""


class Postgres:
    """A server that listens on a socket in a folder of its own."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs = programs
        self.folder = folder

    def url(self, database: str) -> str:
        return f"postgresql+asyncpg://{self.user}@/{database}?host={self.folder}"

    @property
    def user(self) -> str:
        return "chatbot"

    def run(self, program: str, *arguments: str, data: bytes = b"") -> bytes:
        """Run one of its programs against it to the end, and return what it printed."""
        to_it = ["--host", str(self.folder), "--username", self.user]
        return subprocess.run(  # noqa: S603  our own arguments
            [self._programs / program, *to_it, *arguments], input=data, check=True, capture_output=True, timeout=60
        ).stdout

    def emptied(self) -> str:
        """Empty the database that tests share, closing other connections to it, and return its name."""
        others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        gone = [f"SELECT pg_terminate_backend(pid) {others}", "DROP SCHEMA public CASCADE", "CREATE SCHEMA public"]
        self.run("psql", "--dbname", SHARED, "--quiet", *(f"--command={statement}" for statement in gone))
        return SHARED

    @contextmanager
    def database(self) -> Iterator[str]:
        """Yield the name of a new, empty database and drop it afterwards (ten times slower than `emptied`)."""
        name = f"test_{uuid4().hex}"
        self.run("createdb", name)
        try:
            yield name
        finally:
            self.run("dropdb", "--force", name)


def programs() -> Path | None:
    """Return the folder of the newest installed server's programs."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parents[1].name))
    beside = shutil.which("initdb")
    return installed[-1].parent if installed else Path(beside).parent if beside else None


@contextmanager
def served() -> Iterator[Postgres]:
    """Run a server while the block runs, in a folder outside pytest's, which only the user of the tests may enter."""
    where = programs()
    if where is None:
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    folder = Path(mkdtemp(prefix="pg-"))
    as_whom = UNPRIVILEGED if os.getuid() == 0 else None
    if as_whom is not None:
        shutil.chown(folder, as_whom)
    postgres = Postgres(where, folder)
    try:
        data = str(folder / "data")
        initdb = [str(where / "initdb"), "-D", data, "--username", postgres.user, "--auth", "trust"]
        locale = ["--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync", "--no-instructions"]
        subprocess.run([*initdb, *locale], check=True, capture_output=True, user=as_whom, cwd=folder)  # noqa: S603
        settings = [part for name, value in SETTINGS.items() for part in ("-c", f"{name}={value}")]
        command = [str(where / "postgres"), "-D", data, "-k", str(folder), *settings]
        with (
            (folder / "log").open("wb") as log,
            subprocess.Popen(  # noqa: S603  our own arguments
                command, user=as_whom, cwd=folder, stdout=log, stderr=log
            ) as server,
        ):
            try:
                _wait(postgres, server)
                yield postgres
            finally:
                server.send_signal(signal.SIGINT)  # its fast shutdown: SIGTERM would wait for clients
                server.wait(30)
    finally:
        shutil.rmtree(folder)


def _wait(postgres: Postgres, server: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            postgres.run("psql", "--dbname", SHARED, "--command", "SELECT 1")
        except subprocess.CalledProcessError:
            time.sleep(0.05)
        else:
            return
    pytest.fail(f"PostgreSQL did not answer: {(postgres.folder / 'log').read_text('utf-8')[-2000:]}")
