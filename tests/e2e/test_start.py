"""A start that fails prints one sentence with the reason and the remedy."""

import contextlib
import socket
from pathlib import Path

import anyio
import httpx2
import pytest

from chatbot.api import key_pair
from llm_server.scripted import write_tokenizer
from tests.conftest import free_port
from tests.e2e.conftest import chat_environment, scripted_model, stopped_in_the_end
from tests.forked import Forked
from tests.patience import patient
from tests.qdrant_server import FakeServer

pytestmark = pytest.mark.e2e


def refusal(folder: Path, redis_url: str, **settings: str) -> str:
    """Start the chat API, which has to end with 1, and return what it printed but its log."""
    _, public = key_pair(folder)
    write_tokenizer(folder / "tokenizer")
    environment = chat_environment(public, redis_url) | {
        "DATA_DIR": str(folder / "data"),
        "PORT": str(free_port()),
        "LLM_URLS": "http://127.0.0.1:1",
        "LLM_TOKENIZER": str(folder / "tokenizer"),
        "LLM_PROFILE": "scripted",
        **settings,
    }
    (folder / "data").mkdir()
    started = Forked("chatbot.__main__", ["serve"], environment, folder / "log")
    status = started.wait(60)
    printed = [line for line in (folder / "log").read_text("utf-8").splitlines() if not line.startswith("{")]
    assert status == 1, printed
    return "\n".join(printed)


def test_missing_weights_are_named_with_the_command_that_brings_them(tmp_path: Path, redis_url: str) -> None:
    printed = refusal(tmp_path, redis_url, WEIGHTS_DIR=str(tmp_path / "none"))
    assert printed.startswith("chatbot: no embedding model in ")
    assert printed.endswith("run `llm-server fetch e5-small`")


def test_a_missing_tokenizer_is_named(tmp_path: Path, redis_url: str) -> None:
    printed = refusal(tmp_path, redis_url, LLM_TOKENIZER=str(tmp_path / "none"))
    assert printed.startswith("chatbot: ")
    assert str(tmp_path / "none") in printed
    assert "\n" not in printed


def test_a_taken_port_is_named(tmp_path: Path, redis_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert refusal(tmp_path, redis_url, PORT=str(port)).startswith(f"chatbot: port {port} is taken")


async def wait_for_status(url: str, *, status: int) -> dict[str, str]:
    """Wait for this status of a readiness probe, and return the states of the parts."""
    async with httpx2.AsyncClient() as http:
        with anyio.fail_after(patient(60)):
            while True:
                with contextlib.suppress(httpx2.TransportError):
                    reply = await http.get(f"{url}/readyz")
                    if reply.status_code == status:
                        return dict(reply.json())
                await anyio.sleep(0.1)


@pytest.mark.anyio
async def test_both_services_start_without_qdrant_and_are_ready_once_it_answers(tmp_path: Path, redis_url: str) -> None:
    port_of_qdrant = free_port()
    qdrant = FakeServer(port=port_of_qdrant)
    qdrant.names, qdrant.alias = set(), None
    _, public = key_pair(tmp_path)
    with scripted_model(tmp_path) as endpoints, contextlib.ExitStack() as stack:
        urls = {}
        for service in ("chatbot", "ingest"):
            port = str(free_port())
            environment = chat_environment(public, redis_url, **endpoints) | {
                "DATA_DIR": str(tmp_path / service),
                "PORT": port,
                "INGEST_PORT": port,
                "QDRANT_URL": f"http://127.0.0.1:{port_of_qdrant}",
            }
            started = Forked(f"{service}.__main__", ["serve"], environment, tmp_path / f"{service}.log")
            stack.enter_context(stopped_in_the_end(started))
            urls[service] = f"http://127.0.0.1:{port}"
        for service, url in urls.items():
            assert (await wait_for_status(url, status=503))["index"] == "unavailable", service
        await qdrant.server.start_server()
        try:
            for url in urls.values():
                await wait_for_status(url, status=200)
        finally:
            await qdrant.server.close()
    assert qdrant.alias == "kb-1", "the worker of ingest makes it"
    for service in urls:
        log = (tmp_path / f"{service}.log").read_text("utf-8")
        assert log.count('"index_start_failed"') == 1, log
        assert f"127.0.0.1:{port_of_qdrant} cannot be reached: Connection refused" in log
