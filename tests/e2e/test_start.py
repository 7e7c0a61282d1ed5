"""A start that fails prints one sentence with the reason and the remedy."""

import re
import socket
from pathlib import Path

import pytest

from chatbot.api import key_pair
from llm_server.scripted import write_tokenizer
from tests.conftest import free_port
from tests.e2e.conftest import chat_environment
from tests.forked import Forked

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("WEIGHTS_DIR", "chatbot: no embedding model in {value}/.* run `llm-server fetch e5-small`"),
        ("LLM_TOKENIZER", "chatbot: .*{value}.*"),
        ("PORT", "chatbot: port {value} is taken.*"),
    ],
)
def test_a_start_that_fails_names_the_reason(tmp_path: Path, redis_url: str, setting: str, complaint: str) -> None:
    _, public = key_pair(tmp_path)
    write_tokenizer(tmp_path / "tokenizer")
    (tmp_path / "data").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        value = str(taken.getsockname()[1]) if setting == "PORT" else str(tmp_path / "none")
        environment = chat_environment(public, redis_url) | {
            "DATA_DIR": str(tmp_path / "data"),
            "PORT": str(free_port()),
            "LLM_URLS": "http://127.0.0.1:1",
            "LLM_TOKENIZER": str(tmp_path / "tokenizer"),
            "LLM_PROFILE": "scripted",
            setting: value,
        }
        started = Forked("chatbot.__main__", ["serve"], environment, tmp_path / "log")
        assert started.wait(60) == 1
    lines = (tmp_path / "log").read_text("utf-8").splitlines()
    (printed,) = [line for line in lines if not line.startswith("{")]
    assert re.fullmatch(complaint.format(value=value), printed)
