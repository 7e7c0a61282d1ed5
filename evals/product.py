"""The product as evals start it: Redis, vLLM and `chatbot serve`, each a process of its own, all ended with the block.

run.py starts the same parts in another arrangement (one process for both services, stores that stay), and nothing may
import it; what is alike here is the few lines that start a child and wait for it.
"""

import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from redis import Redis
from redis.exceptions import RedisError

from chatbot.api import AUDIENCE, ISSUER, LocalSigner, key_pair
from evals.redis_program import redis_program

MODEL_STARTS_WITHIN = 420.0
PART_STARTS_WITHIN = 120.0


class ProductNotStarted(Exception):
    """A part did not start; the message names its log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which product to start: a model profile, where data and weights are, and settings beside the defaults."""

    profile: str
    data: Path
    weights: Path
    environment: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A running vLLM."""

    url: str
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """A running chat API and what evals need beside its address."""

    url: str
    redis_url: str
    signer: LocalSigner
    pids: Mapping[str, int]


def end_like_ctrl_c() -> None:
    """Let SIGTERM take the way of Ctrl-C, so that every child is stopped."""
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))


@contextmanager
def model(wanted: Wanted) -> Iterator[Model]:
    """Run vLLM while the block runs; it has generated its first token when the block begins.

    Raises:
        ProductNotStarted: see its log.
    """
    port, log = free_port(), wanted.data / "logs" / "llm-server.err"
    command = [sys.executable, "-m", "llm_server", "serve", "--profile", wanted.profile, "--port", str(port)]
    environment = {**wanted.environment, "WEIGHTS_DIR": str(wanted.weights), "DATA_DIR": str(wanted.data)}
    with child(command, log=log, environment=environment) as process:
        # It prints one line, after the warm-up, or ends.
        line = process.stdout.readline() if process.stdout else ""
        if not line.startswith("ready"):
            raise ProductNotStarted(f"vLLM did not start: see {log}")
        yield Model(url=f"http://127.0.0.1:{port}", pid=process.pid)


@contextmanager
def product(wanted: Wanted, served: Model, *, module: str = "chatbot", **settings: str) -> Iterator[Product]:
    """Run Redis and the chat API (of a module) on the data folder while the block runs; `settings` are its environment.

    Raises:
        ProductNotStarted: see the log that it names.
    """
    private, public = key_pair(wanted.data)
    port, log = free_port(), wanted.data / "logs" / "chatbot.err"
    with ExitStack() as stack:
        redis_url, redis_pid = stack.enter_context(redis(wanted))
        environment = {
            **wanted.environment,
            "PORT": str(port),
            "DATA_DIR": str(wanted.data),
            "WEIGHTS_DIR": str(wanted.weights),
            "REDIS_URL": redis_url,
            "AUDIT_KEY": secrets.token_hex(32),
            "LLM_URLS": served.url,
            "LLM_TOKENIZER": str(wanted.weights / wanted.profile),
            "LLM_PROFILE": wanted.profile,
            "AUTH__ISSUER": ISSUER,
            "AUTH__AUDIENCE": AUDIENCE,
            "AUTH__PUBLIC_KEY_FILE": str(public),
            **settings,
        }
        command = [sys.executable, "-m", module, "serve"]
        process = stack.enter_context(child(command, log=log, environment=environment))
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: answers(f"{url}/readyz"), process, log=log)
        pids = {"redis": redis_pid, "model": served.pid, "chatbot": process.pid}
        yield Product(url=url, redis_url=redis_url, signer=LocalSigner(private.read_text("ascii")), pids=pids)


@contextmanager
def redis(wanted: Wanted) -> Iterator[tuple[str, int]]:
    """Run Redis with the durability of `make run` while the block runs; yield its URL and process id."""
    folder, port, log = wanted.data / "redis", free_port(), wanted.data / "logs" / "redis.err"
    folder.mkdir(parents=True, exist_ok=True)
    where = ["--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder), "--save", ""]
    command = [redis_program(), *where, "--appendonly", "yes", "--appendfsync", "everysec"]
    with child(command, log=log, environment=wanted.environment) as process, Redis(port=port) as client:
        wait_until(lambda: pings(client), process, log=log)
        yield f"redis://127.0.0.1:{port}/0", process.pid


@contextmanager
def child(command: list[str], *, log: Path, environment: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Run a program in a session of its own while the block runs; what it says of itself goes to `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as errors:
        process = subprocess.Popen(  # noqa: S603  our own programs
            command,
            stdout=subprocess.PIPE,
            stderr=errors,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
            env=dict(environment),
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout:
                process.stdout.close()


def wait_until(there: Callable[[], bool], process: subprocess.Popen[str], *, log: Path) -> None:
    """Return when the part answers.

    Raises:
        ProductNotStarted: it ended, or takes too long.
    """
    deadline = time.monotonic() + PART_STARTS_WITHIN
    while not there():
        if process.poll() is not None or time.monotonic() > deadline:
            raise ProductNotStarted(f"{log.stem} did not start: see {log}")
        time.sleep(0.1)


def answers(url: str) -> bool:
    """Return whether an address on loopback answers 200."""
    try:
        with urlopen(url, timeout=5) as response:  # noqa: S310  our own address
            return bool(response.status == 200)
    except (URLError, OSError):
        return False


def pings(client: Redis) -> bool:
    """Return whether Redis takes commands."""
    try:
        return bool(client.ping())
    except RedisError:
        return False


def free_port() -> int:
    """Return a port that is free on loopback now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def resident_bytes(pid: int) -> int:
    """Return the memory of a process and all that it started, shared pages counted once."""
    parents = {int(folder.name): _parent(folder) for folder in Path("/proc").iterdir() if folder.name.isdigit()}
    tree = {pid}
    while grown := {child for child, parent in parents.items() if parent in tree} - tree:
        tree |= grown
    return sum(_proportional_bytes(Path("/proc", str(member))) for member in tree)


def _parent(folder: Path) -> int:
    """Return a process's parent, 0 where it has gone."""
    try:
        # The name in parentheses may hold blanks; the parent is the second field behind it.
        return int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, IndexError):
        return 0


def _proportional_bytes(folder: Path) -> int:
    try:
        lines = (folder / "smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)
