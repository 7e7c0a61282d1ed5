"""Fixtures for end-to-end tests: the product's own processes and stores, with the scripted model server."""

import asyncio
import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import httpx2
import pytest

from chatbot.api import ISSUER, LocalSigner, key_pair
from evals.product import write_calibration_for
from evals.sample_bank import SAMPLE_BANK
from knowledge.identity import Principal
from tests.conftest import free_port, made_once
from tests.e2e import model
from tests.e2e.engine import Engine, engine
from tests.e2e.events import SentEvent, read_events
from tests.forked import Forked, run_to_the_end
from tests.patience import patient

DOCUMENTS = Path(__file__).parent / "documents"
KOREAN = "샘물 정기예금을 만기 전에 해지하면 금리가 어떻게 되나요?"
ENGLISH = "How much does an overseas transfer up to USD 5,000 cost?"
"""Questions that are answered by the documents."""
TENANT = "hanbit"


def signed_token(signer: LocalSigner, sub: str, *, tenant: str, role: str) -> str:
    return signer.token(Principal(tenant=tenant, sub=sub, roles=frozenset({role}), groups=frozenset()))[0]


def signed_in(url: str, token: str) -> httpx2.AsyncClient:
    """Return a client for `url` that sends a bearer token."""
    return httpx2.AsyncClient(base_url=url, headers={"authorization": f"Bearer {token}"}, timeout=30)


@dataclass(kw_only=True)
class Product:
    """A running chatbot: its URL, its model's URL, its data, and its process."""

    url: str
    model_url: str
    data: Path
    environment: dict[str, str]
    process: Forked
    signer: LocalSigner

    @property
    def database(self) -> Path:
        return self.data / "bank.db"

    def token(self, sub: str, *, tenant: str = TENANT, role: str = "customer") -> str:
        """Return a token of a user with one role."""
        return signed_token(self.signer, sub, tenant=tenant, role=role)

    def client(self, sub: str = "lee", *, tenant: str = TENANT, role: str = "customer") -> httpx2.AsyncClient:
        """Return a client that is signed in as `sub`."""
        return signed_in(self.url, self.token(sub, tenant=tenant, role=role))

    async def tell(self, **behaviour: object) -> None:
        """Change the scripted model's behaviour."""
        await model.tell(self.model_url, **behaviour)

    async def restore(self) -> None:
        """Restore the scripted model's initial behaviour."""
        await model.restore(self.model_url)

    @contextlib.asynccontextmanager
    async def telling(self, **behaviour: object) -> AsyncGenerator[None]:
        """Change the scripted model's behaviour while the block runs."""
        await self.tell(**behaviour)
        try:
            yield
        finally:
            await self.restore()

    async def running(self) -> int:
        """Return the number of running generations."""
        return await model.running(self.model_url)

    async def idle(self) -> bool:
        """Return whether no generation is running."""
        return await self.running() == 0

    async def ask(self, http: httpx2.AsyncClient, message: str, **more: object) -> list[SentEvent]:
        """Ask a question and return all events of the answer."""
        async with http.stream("POST", "/v1/chat", json={"message": message, **more}) as response:
            assert response.status_code == 200, await response.aread()
            return [event async for event in read_events(response)]


def new_customer() -> str:
    """Return a unique customer name."""
    return f"customer-{uuid4().hex}"


def audited(database: Path, answer_id: str) -> list[str]:
    """Return the kinds of an answer's audit rows in a SQLite database."""
    query = "SELECT kind FROM chatbot_audit WHERE answer_id = ? ORDER BY kind"
    with contextlib.closing(sqlite3.connect(database, timeout=10)) as sql:
        return [kind for (kind,) in sql.execute(query, (answer_id,))]


async def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    """Wait until a condition (sync or async) holds; fail after `patient(seconds)`."""
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
    """Wait until a URL answers 200."""
    deadline = time.monotonic() + seconds
    with httpx2.Client() as http:
        while time.monotonic() < deadline:
            assert started.poll() is None, log.read_text("utf-8")[-3000:]
            with contextlib.suppress(httpx2.TransportError):
                if http.get(url).status_code == 200:
                    return
            time.sleep(0.1)
    pytest.fail(f"{url} never became ready: {log.read_text('utf-8')[-3000:]}")


def scripted_process(options: Sequence[str], log: Path) -> Forked:
    """Start a scripted model server."""
    return Forked("llm_server.scripted.__main__", options, os.environ, log)  # noqa: TID251 - children inherit it


@contextlib.contextmanager
def scripted_model(folder: Path) -> Iterator[dict[str, str]]:
    """Serve the scripted model while the block runs; yield the settings that point to it."""
    log, port = folder / "model.log", free_port()
    server = scripted_process(["--port", str(port)], log)
    with stopped_in_the_end(server):
        wait_for(f"http://127.0.0.1:{port}/health", server, log)
        url = f"http://127.0.0.1:{port}"
        yield {"LLM_URLS": url, "LLM_PROFILE": "scripted"}


AUDIT_KEY = "a key for the tests"
SERVED = ("scripted", "qwen2.5-coder-0.5b-int8", "qwen2.5-coder-1.5b-int8")
"""The served models, which replace the one that the calibration was fitted to."""


def chat_environment(public_key: Path, redis_url: str, **settings: str) -> dict[str, str]:
    """Return the environment of a chat API that trusts a public key and has a high request limit."""
    return dict(os.environ) | {  # noqa: TID251 - children inherit it
        "REDIS_URL": redis_url,
        "AUTH__ISSUER": ISSUER,
        "AUTH__PUBLIC_KEY_FILE": str(public_key),
        "AUDIT_KEY": AUDIT_KEY,
        "BANK_FILE": str(SAMPLE_BANK),
        "CALIBRATION_FILE": str(write_calibration_for(public_key.with_name("calibration.yaml"), *SERVED)),
        "LEDGER__LIMITS__USER__REQUESTS_PER_MINUTE": "1000",
        **settings,
    }


def load(documents: Path, environment: dict[str, str], log: Path) -> None:
    """Load and approve a folder of documents."""
    arguments = ["load", str(documents), "--approved-by", "park", "--tenant", TENANT]
    run_to_the_end("ingest.__main__", arguments, environment, log)


def copy_loaded(session: Path, data: Path, documents: Path = DOCUMENTS) -> None:
    """Copy the index, the catalogue and the originals of the documents, which are loaded once per run."""

    def load_into(folder: Path) -> None:
        environment = dict(os.environ) | {"DATA_DIR": str(folder)}  # noqa: TID251 - children inherit it
        load(documents, environment, session / "load.log")

    shutil.copytree(made_once(session, f"loaded-{documents.parent.name}", load_into), data, dirs_exist_ok=True)


@contextlib.contextmanager
def served(
    folder: Path, redis_url: str, endpoints: dict[str, str], documents: Path = DOCUMENTS, /, **settings: str
) -> Iterator[Product]:
    """Serve the chat API over the loaded documents in its own process while the block runs."""
    data, log, port = folder / "data", folder / "chat.log", settings.get("PORT") or str(free_port())
    copy_loaded(folder.parent, data, documents)
    private, public = key_pair(data)
    own = {"DATA_DIR": str(data), "PORT": port, "DEMO_KEY_FILE": str(private), "DEMO_TENANT": TENANT}
    environment = chat_environment(public, redis_url, **own | endpoints | settings)
    chat = Forked("chatbot.__main__", ["serve"], environment, log)
    with stopped_in_the_end(chat):
        url = f"http://127.0.0.1:{port}"
        wait_for(f"{url}/readyz", chat, log)
        yield Product(
            url=url,
            model_url=endpoints["LLM_URLS"],
            data=data,
            environment=environment,
            process=chat,
            signer=LocalSigner(private.read_text("ascii")),
        )


@pytest.fixture(scope="session")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Engine]]:
    """Two vLLMs, started side by side, for all tests of a session; its last test kills one."""
    with contextlib.ExitStack() as stack:
        both = [stack.enter_context(engine(tmp_path_factory.mktemp("vllm"))) for _ in range(2)]
        for vllm in both:
            vllm.await_ready()
        yield both


@pytest.fixture(scope="session")
def product(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[Product]:
    """The product with the scripted model, shared by tests that restore its state."""
    folder = tmp_path_factory.mktemp("product")
    with scripted_model(folder) as endpoints, served(folder, redis_url, endpoints) as running:
        yield running
