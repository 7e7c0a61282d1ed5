"""Start the product for evals: Redis, a model server and `chatbot serve`, one process each, stopped after the block.

run.py starts the same parts in another arrangement (one process for both services, persistent stores) and must not be
imported; the two share only the few lines that start a process and wait for it.
"""

import math
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar
from urllib.error import URLError
from urllib.request import urlopen

import anyio
import msgspec
from redis import Redis
from redis.exceptions import RedisError

from chatbot.api import AUDIENCE, ISSUER, LocalSigner, key_pair
from chatbot.calibration import read_calibration
from evals.redis_program import redis_program
from evals.sample_bank import SAMPLE_BANK
from llm_server.scripted import Behaviour

T = TypeVar("T")

START_SECONDS = 120.0
STOP_SECONDS = 30.0
"""From SIGTERM to SIGKILL."""


class ProductNotStarted(Exception):
    """A process of the product did not start; the message names its log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductSpec:
    """The product to start: the model profile, the folders for data and weights, and the environment."""

    profile: str
    data: Path
    weights: Path
    environment: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningModel:
    """A running model server."""

    url: str
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningProduct:
    """A running chat API: its URL, its Redis, the key that signs tokens, and the process id of each part by name."""

    url: str
    redis_url: str
    signer: LocalSigner
    pids: Mapping[str, int]


def interrupt_on_sigterm() -> None:
    """Handle SIGTERM like Ctrl-C, so that all processes are stopped."""
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))


@asynccontextmanager
async def started_part(part: AbstractContextManager[T]) -> AsyncGenerator[T]:
    """Run a part while the block runs; start and stop it in a thread."""
    running = await anyio.to_thread.run_sync(part.__enter__)
    try:
        yield running
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(part.__exit__, None, None, None)


@contextmanager
def run_model(spec: ProductSpec) -> Iterator[RunningModel]:
    """Run vLLM while the block runs; it has generated its first token when the block starts.

    Raises:
        ProductNotStarted: vLLM ended before it was ready.
    """
    port = free_port()
    command = [sys.executable, "-m", "llm_server", "serve", "--profile", spec.profile, "--port", str(port)]
    environment = {**spec.environment, "WEIGHTS_DIR": str(spec.weights), "DATA_DIR": str(spec.data)}
    with _run_model_server("vLLM", command, spec.data / "logs" / "llm-server.err", environment) as model:
        yield model


@contextmanager
def run_scripted_model(spec: ProductSpec, behaviour: Behaviour | None = None) -> Iterator[RunningModel]:
    """Run the scripted model while the block runs.

    Raises:
        ProductNotStarted: the scripted model ended before it was ready.
    """
    command = [sys.executable, "-m", "llm_server.scripted"]
    if behaviour is not None:
        script = spec.data / "model.json"
        # JSON has no infinity; an infinite field keeps its default.
        fields = {name: value for name, value in msgspec.structs.asdict(behaviour).items() if value != math.inf}
        script.write_bytes(msgspec.json.encode(fields))
        command += ["--script", str(script)]
    log = spec.data / "logs" / "scripted.err"
    with _run_model_server("the scripted model", command, log, spec.environment) as model:
        yield model


def scripted_settings(spec: ProductSpec) -> dict[str, str]:
    """Return the settings for a product that uses the scripted model instead of a calibrated one."""
    calibration = write_calibration_for(spec.data / "calibration.yaml", "scripted")
    return {"LLM_PROFILE": "scripted", "CALIBRATION_FILE": str(calibration)}


def write_calibration_for(path: Path, *models: str) -> Path:
    """Write the shipped calibration under the names of other models."""
    shipped = read_calibration(None).model_copy(update={"models": models})
    path.write_text(shipped.model_dump_json(), "utf-8")  # JSON is YAML
    return path


@contextmanager
def _run_model_server(
    name: str, command: list[str], log: Path, environment: Mapping[str, str]
) -> Iterator[RunningModel]:
    with run_process(command, log=log, environment=environment) as process:
        # It prints `ready URL` once it serves, or exits without a line.
        line = process.stdout.readline() if process.stdout else ""
        word, _, url = line.strip().partition(" ")
        if word != "ready":
            raise ProductNotStarted(f"{name} did not start: see {log}")
        yield RunningModel(url=url, pid=process.pid)


@contextmanager
def run_product(spec: ProductSpec, model: RunningModel, **settings: str) -> Iterator[RunningProduct]:
    """Run Redis and the chat API on the data folder while the block runs; `settings` are environment variables.

    Raises:
        ProductNotStarted: Redis or the chat API did not start.
    """
    private, _ = key_pair(spec.data)
    with run_redis(spec.data, spec.environment) as (redis_url, redis_pid):
        signer = LocalSigner(private.read_text("ascii"))
        redis_only = RunningProduct(url="", redis_url=redis_url, signer=signer, pids={"redis": redis_pid})
        with run_replica(spec, model, redis_only, **settings) as product:
            yield product


@contextmanager
def run_replica(
    spec: ProductSpec, model: RunningModel, other: RunningProduct, **settings: str
) -> Iterator[RunningProduct]:
    """Run a chat API on the data folder while the block runs, with the Redis of another product.

    Raises:
        ProductNotStarted: the chat API did not start.
    """
    _, public = key_pair(spec.data)
    port, log = free_port(), spec.data / "logs" / "chatbot.err"
    environment = {
        **spec.environment,
        "PORT": str(port),
        "DATA_DIR": str(spec.data),
        "WEIGHTS_DIR": str(spec.weights),
        "REDIS_URL": other.redis_url,
        "AUDIT_KEY": secrets.token_hex(32),
        "BANK_FILE": str(SAMPLE_BANK),
        "LLM_URLS": model.url,
        "LLM_PROFILE": spec.profile,
        "AUTH__ISSUER": ISSUER,
        "AUTH__AUDIENCE": AUDIENCE,
        **({} if "AUTH__JWKS_URL" in settings else {"AUTH__PUBLIC_KEY_FILE": str(public)}),
        **settings,
    }
    command = [sys.executable, "-m", "chatbot", "serve"]
    with run_process(command, log=log, environment=environment) as process:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: answers_200(f"{url}/readyz"), process, log=log)
        pids = {**other.pids, "model": model.pid, "chatbot": process.pid}
        yield replace(other, url=url, pids=pids)


@contextmanager
def run_redis(data: Path, environment: Mapping[str, str]) -> Iterator[tuple[str, int]]:
    """Run Redis with the durability of `make run` while the block runs; yield its URL and process id."""
    folder, port, log = data / "redis", free_port(), data / "logs" / "redis.err"
    folder.mkdir(parents=True, exist_ok=True)
    options = ["--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder), "--save", ""]
    command = [redis_program(), *options, "--appendonly", "yes", "--appendfsync", "everysec"]
    with run_process(command, log=log, environment=environment) as process, Redis(port=port) as client:
        wait_until(lambda: is_redis_up(client), process, log=log)
        yield f"redis://127.0.0.1:{port}/0", process.pid


@contextmanager
def run_process(command: list[str], *, log: Path, environment: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Run a program in its own session while the block runs; append its standard error to `log`."""
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
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout:
                process.stdout.close()


def wait_until(is_ready: Callable[[], bool], process: subprocess.Popen[str], *, log: Path) -> None:
    """Wait until the condition holds.

    Raises:
        ProductNotStarted: the process ended, or START_SECONDS passed.
    """
    deadline = time.monotonic() + START_SECONDS
    while not is_ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise ProductNotStarted(f"{log.stem} did not start: see {log}")
        time.sleep(0.1)


def answers_200(url: str) -> bool:
    """Return whether a URL on loopback answers 200."""
    try:
        with urlopen(url, timeout=5) as response:  # noqa: S310  our own address
            return bool(response.status == 200)
    except (URLError, OSError):
        return False


def is_redis_up(client: Redis) -> bool:
    """Return whether Redis answers commands."""
    try:
        return bool(client.ping())
    except RedisError:
        return False


def free_port() -> int:
    """Return a port that is currently free on loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def resident_bytes(pid: int) -> int:
    """Return the memory of a process and its descendants; shared pages count once (proportional set size)."""
    total = 0
    pids = [pid]
    for process in pids:  # grows during iteration
        folder = Path("/proc", str(process))
        with suppress(OSError):  # already ended
            for task in folder.glob("task/*/children"):
                pids += map(int, task.read_text().split())
            lines = (folder / "smaps_rollup").read_text().splitlines()
            total += next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)
    return total
