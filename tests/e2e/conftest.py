"""The product as customers meet it: real processes and stores; the scripted model server stands in for the model."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import msgspec
import pytest

from chatbot.api import ISSUER, LocalSigner, key_pair
from knowledge.identity import Principal
from llm_server.scripted import write_tokenizer
from tests.conftest import free_port
from tests.forked import Forked, run_to_the_end
from tests.patience import patient

DOCUMENTS = Path(__file__).parent / "documents"
TENANT = "hanbit"


@dataclass(frozen=True, slots=True, kw_only=True)
class SentEvent:
    """One server-sent event as it came over the wire."""

    id: str
    name: str
    data: bytes

    def field(self, name: str) -> object:
        """Return one field of its JSON."""
        return msgspec.json.decode(self.data)[name]


async def read_events(response: httpx2.Response) -> AsyncGenerator[SentEvent]:
    """Yield the events of a streaming response."""
    fields: dict[str, str] = {}
    async for line in response.aiter_lines():
        if line.startswith(":"):
            continue
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif fields:
            yield SentEvent(id=fields.get("id", ""), name=fields["event"], data=fields["data"].encode())
            fields = {}


def text_of(events: Sequence[SentEvent]) -> str:
    """Return the answer's text."""
    return "".join(str(event.field("text")) for event in events if event.name == "token")


@dataclass(kw_only=True)
class Product:
    """A served chatbot: its address, its model's address, its data, and its process."""

    url: str
    model_url: str
    data: Path
    environment: dict[str, str]
    process: Forked
    signer: LocalSigner
    people: list[str] = field(default_factory=list)

    def token(self, sub: str, *, tenant: str = TENANT, roles: frozenset[str] = frozenset({"customer"})) -> str:
        """Return a customer's token."""
        return self.signer.token(Principal(tenant=tenant, sub=sub, roles=roles, groups=frozenset()))[0]

    def client(self, sub: str = "lee") -> httpx2.AsyncClient:
        """Return a client that is signed in."""
        return httpx2.AsyncClient(base_url=self.url, headers={"authorization": f"Bearer {self.token(sub)}"}, timeout=30)

    async def tell(self, **behaviour: object) -> None:
        """Change what the scripted model does."""
        async with httpx2.AsyncClient() as http:
            (await http.post(f"{self.model_url}/script", json=behaviour)).raise_for_status()

    async def restore(self) -> None:
        """Set the scripted model back."""
        async with httpx2.AsyncClient() as http:
            (await http.delete(f"{self.model_url}/script")).raise_for_status()

    async def running(self) -> int:
        """Return how many generations the model runs now."""
        async with httpx2.AsyncClient() as http:
            return int((await http.get(f"{self.model_url}/stats")).json()["running"])

    async def ask(self, http: httpx2.AsyncClient, message: str, **more: object) -> list[SentEvent]:
        """Ask and return every event."""
        async with http.stream("POST", "/v1/chat", json={"message": message, **more}) as response:
            assert response.status_code == 200, await response.aread()
            return [event async for event in read_events(response)]


async def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    """Wait until an (awaitable) condition holds, as it should within `seconds`."""
    deadline = time.monotonic() + patient(seconds)
    while True:
        holds = condition()
        if asyncio.iscoroutine(holds):
            holds = await holds
        if holds:
            return
        assert time.monotonic() < deadline, "the condition never held"
        await asyncio.sleep(0.02)


@contextlib.contextmanager
def process(*command: str, environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program of ours while the block runs; it is stopped by its own process id."""
    with (
        log.open("ab") as out,
        subprocess.Popen(command, env=environment, stdout=out, stderr=out) as started,  # noqa: S603
        stopped_in_the_end(started),
    ):
        yield started


@contextlib.contextmanager
def stopped_in_the_end(started: subprocess.Popen[bytes] | Forked) -> Iterator[None]:
    """Stop a process when the block ends."""
    try:
        yield
    finally:
        if started.poll() is None:
            started.send_signal(signal.SIGTERM)
        try:
            started.wait(15)
        except (subprocess.TimeoutExpired, TimeoutError):
            started.send_signal(signal.SIGKILL)
            started.wait(15)


def wait_for(url: str, started: subprocess.Popen[bytes] | Forked, log: Path, seconds: float = 180) -> None:
    """Wait until an address answers 200."""
    deadline = time.monotonic() + seconds
    with httpx2.Client() as http:
        while time.monotonic() < deadline:
            assert started.poll() is None, log.read_text("utf-8")[-3000:]
            with contextlib.suppress(httpx2.TransportError):
                if http.get(url).status_code == 200:
                    return
            time.sleep(0.1)
    pytest.fail(f"{url} never became ready: {log.read_text('utf-8')[-3000:]}")


@contextlib.contextmanager
def scripted_model(folder: Path) -> Iterator[dict[str, str]]:
    """Serve the scripted model; yield the settings that point to it."""
    tokenizer, log, port = folder / "tokenizer", folder / "model.log", free_port()
    write_tokenizer(tokenizer)
    command = (sys.executable, "-m", "llm_server.scripted", "--port", str(port))
    with process(*command, environment=dict(os.environ), log=log) as model:  # noqa: TID251 - children inherit it
        wait_for(f"http://127.0.0.1:{port}/health", model, log)
        url = f"http://127.0.0.1:{port}"
        yield {"LLM_URLS": url, "LLM_TOKENIZER": str(tokenizer), "LLM_PROFILE": "scripted"}


@contextlib.contextmanager
def served(folder: Path, redis_url: str, model: dict[str, str], **settings: str) -> Iterator[Product]:
    """Load the documents, serve the chat API as a process of its own, and stop it in the end."""
    data, log, port = folder / "data", folder / "chat.log", free_port()
    data.mkdir()
    private, public = key_pair(data)
    environment = dict(os.environ) | {  # noqa: TID251 - children inherit it
        "DATA_DIR": str(data),
        "PORT": str(port),
        "REDIS_URL": redis_url,
        "AUTH__ISSUER": ISSUER,
        "AUTH__PUBLIC_KEY_FILE": str(public),
        "DEMO_KEY_FILE": str(private),
        "AUDIT_KEY": "a key for the tests",
        "LEDGER__LIMITS__USER__REQUESTS_PER_MINUTE": "1000",
        **model,
        **settings,
    }
    load = ["load", str(DOCUMENTS), "--approved-by", "park", "--tenant", TENANT]
    run_to_the_end("ingest.__main__", load, environment, folder / "load.log")
    chat = Forked("chatbot.__main__", ["serve"], environment, log)
    with stopped_in_the_end(chat):
        url = f"http://127.0.0.1:{port}"
        wait_for(f"{url}/readyz", chat, log)
        yield Product(
            url=url,
            model_url=model["LLM_URLS"],
            data=data,
            environment=environment,
            process=chat,
            signer=LocalSigner(private.read_text("ascii")),
        )


@pytest.fixture(scope="session")
def product(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[Product]:
    """The product with the scripted model, shared by tests that leave it as they found it."""
    folder = tmp_path_factory.mktemp("product")
    with scripted_model(folder) as model, served(folder, redis_url, model) as running:
        yield running
