"""A PostgreSQL server from Debian's package: one per session, with an empty database per test."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import IO
from uuid import uuid4

import pytest

START_SECONDS = 60.0
# The data need not survive a machine crash; all else is as in production.
SETTINGS = {"listen_addresses": "", "fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
SHARED = "postgres"
UNPRIVILEGED = "postgres"
"""The user that runs the server if the tests run as root, because PostgreSQL refuses to run as root."""


class Postgres:
    """A server that listens on a socket in its own folder."""

    user = "chatbot"

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs = programs
        self.folder = folder
        self.port = 5432

    def url(self, database: str) -> str:
        return f"postgresql+asyncpg://{self.user}@/{database}?host={self.folder}"

    def run(self, program: str, *arguments: str, data: bytes = b"") -> bytes:
        """Run a PostgreSQL client program against the server, and return its output."""
        to_it = ["--host", str(self.folder), "--port", str(self.port), "--username", self.user]
        return subprocess.run(  # noqa: S603  our own arguments
            [self._programs / program, *to_it, *arguments], input=data, check=True, capture_output=True, timeout=60
        ).stdout

    @property
    def data(self) -> str:
        return str(self.folder / "data")

    def make(self, program: str, *arguments: str) -> None:
        """Run a PostgreSQL program as the server's user, and wait for its end."""
        command = [str(self._programs / program), *arguments]
        subprocess.run(command, check=True, capture_output=True, user=self._as_whom, cwd=self.folder)  # noqa: S603

    def begin(self, program: str, *arguments: str, out: IO[bytes]) -> "subprocess.Popen[bytes]":
        """Start a PostgreSQL program as the server's user."""
        command = [str(self._programs / program), *arguments]
        return subprocess.Popen(  # noqa: S603  our own arguments
            command, user=self._as_whom, cwd=self.folder, stdout=out, stderr=out, process_group=0
        )

    @property
    def _as_whom(self) -> str | None:
        return UNPRIVILEGED if os.getuid() == 0 else None

    @property
    def socket(self) -> Path:
        """The path of the server's socket."""
        return self.folder / ".s.PGSQL.5432"

    def processes(self) -> list[int]:
        """Return the server's process ids, with the postmaster first: while it is stopped, no process starts."""
        first = int((self.folder / "data" / "postmaster.pid").read_text("ascii").split()[0])
        children = Path(f"/proc/{first}/task/{first}/children").read_text("ascii").split()
        return [first, *map(int, children)]

    def kill(self) -> None:
        """Kill the server, like the loss of its machine."""
        os.kill(self.processes()[0], signal.SIGKILL)

    def query(self, statement: str) -> str:
        """Return a statement's result in the database shared by tests."""
        return self.run("psql", "--dbname", SHARED, "--tuples-only", "--no-align", f"--command={statement}").decode()

    def emptied(self, *filled_by: Path) -> str:
        """Empty the shared database, close its other connections, run SQL files, and return its name.

        The SQL files are outputs of `dump`.
        """
        others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        gone = [f"SELECT pg_terminate_backend(pid) {others}", "DROP SCHEMA public CASCADE", "CREATE SCHEMA public"]
        steps = [*(f"--command={statement}" for statement in gone), *(f"--file={file}" for file in filled_by)]
        self.run("psql", "--dbname", SHARED, "--quiet", "--set=ON_ERROR_STOP=1", *steps)
        return SHARED

    def dump(self) -> bytes:
        """Return a dump of the shared database."""
        return self.run("pg_dump", "--dbname", SHARED)

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
    """Return the program folder of the newest installed server."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parents[1].name))
    beside = shutil.which("initdb")
    return installed[-1].parent if installed else Path(beside).parent if beside else None


@contextmanager
def served(**settings: str) -> Iterator[Postgres]:
    """Run a server while the block runs, outside pytest's folder, which only the tests' user may enter."""
    with _folder() as postgres:
        postgres.port = int(settings.get("port", postgres.port))
        initdb = ("initdb", "-D", postgres.data, "--username", postgres.user, "--auth", "trust")
        postgres.make(*initdb, "--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync", "--no-instructions")
        with _started(postgres, settings):
            yield postgres


@contextmanager
def served_encrypted(authority: Path, rules: str) -> Iterator[Postgres]:
    """Run a server with a certificate of `tests.certificates` and the given access rules (pg_hba.conf)."""
    with TemporaryDirectory() as folder, socket.socket() as probe:
        Path(folder).chmod(0o755)
        for name in ("server.pem", "server.key"):
            copied = Path(folder, name)
            copied.write_bytes((authority / name).read_bytes())
            copied.chmod(0o600)
            if os.getuid() == 0:
                shutil.chown(copied, UNPRIVILEGED)
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
        probe.close()
        files = {"ssl_cert_file": f"{folder}/server.pem", "ssl_key_file": f"{folder}/server.key"}
        with served(ssl="on", listen_addresses="127.0.0.1", port=port, **files) as postgres:
            Path(postgres.data, "pg_hba.conf").write_text(rules, "utf-8")
            postgres.query("SELECT pg_reload_conf()")
            yield postgres


@contextmanager
def standby_of(primary: Postgres, **settings: str) -> Iterator[Postgres]:
    """Run a hot standby of a server, with streaming replication."""
    with _folder() as postgres:
        copied = ("--host", str(primary.folder), "--username", primary.user, "-D", postgres.data)
        postgres.make("pg_basebackup", *copied, "--write-recovery-conf", "--checkpoint=fast", "--no-sync")
        with _started(postgres, settings):
            yield postgres


@contextmanager
def _folder() -> Iterator[Postgres]:
    where = programs()
    if where is None:
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    folder = Path(mkdtemp(prefix="pg-"))
    if os.getuid() == 0:
        shutil.chown(folder, UNPRIVILEGED)
    try:
        yield Postgres(where, folder)
    finally:
        shutil.rmtree(folder)


@contextmanager
def _started(postgres: Postgres, more: dict[str, str]) -> Iterator[None]:
    settings = [part for name, value in (SETTINGS | more).items() for part in ("-c", f"{name}={value}")]
    with (postgres.folder / "log").open("wb") as log:
        server = postgres.begin("postgres", "-D", postgres.data, "-k", str(postgres.folder), *settings, out=log)
        with server:
            try:
                _wait(postgres, server)
                yield
            finally:
                server.send_signal(signal.SIGINT)  # fast shutdown; SIGTERM would wait for clients
                server.wait(30)


@contextmanager
def stands_still(postgres: Postgres) -> Iterator[None]:
    """Freeze a server while the block runs."""
    processes = postgres.processes()
    try:
        for process in processes:
            os.kill(process, signal.SIGSTOP)
        yield
    finally:
        for process in processes:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGCONT)


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
