"""A start that fails prints one sentence with the reason and the remedy."""

import socket
from pathlib import Path

import pytest

from chatbot.api import key_pair
from llm_server.scripted import write_tokenizer
from tests.conftest import free_port
from tests.e2e.conftest import chat_environment
from tests.forked import Forked

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


def test_a_missing_cross_encoder_is_named(tmp_path: Path, redis_url: str) -> None:
    printed = refusal(tmp_path, redis_url, RERANKER__FOLDER=str(tmp_path / "none"))
    assert printed.startswith(f"chatbot: RERANKER__FOLDER: no cross-encoder in {tmp_path / 'none'}")


def test_a_taken_port_is_named(tmp_path: Path, redis_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert refusal(tmp_path, redis_url, PORT=str(port)).startswith(f"chatbot: port {port} is taken")
