"""Both services read the same place of the embedder from the environment, and their own default without one."""

from pathlib import Path

import pytest

from chatbot.settings import Settings as ChatSettings
from ingest.settings import Settings as StaffSettings

REQUIRED = {
    "REDIS_URL": "redis://127.0.0.1",
    "AUDIT_KEY": "k" * 32,
    "AUTH__ISSUER": "i",
    "AUTH__AUDIENCE": "a",
    "AUTH__JWKS_URL": "http://127.0.0.1/keys",
    "WEIGHTS_DIR": "/models",
}
BOTH = pytest.mark.parametrize("service", [ChatSettings, StaffSettings], ids=["chatbot", "ingest"])


def set_embedder(monkeypatch: pytest.MonkeyPatch, embedder: dict[str, str]) -> None:
    for name, value in REQUIRED.items():
        monkeypatch.setenv(name, value)
    for name, value in embedder.items():
        monkeypatch.setenv(f"EMBEDDER__{name}", value)


@BOTH
@pytest.mark.parametrize(
    ("embedder", "name", "folder"),
    [
        ({}, "e5-small", "/models/e5-small"),
        ({"URL": "https://embed.bank", "MODEL": "bge-m3", "API_KEY": "k"}, "bge-m3", None),
        (
            {"MODEL": "BAAI/bge-m3", "REVISION": "5617a9f61b028005a4858fdac845db406aefb181"},
            "BAAI/bge-m3@5617a9f61b02",
            "/models/BAAI--bge-m3@5617a9f61b02",
        ),
    ],
)
def test_the_embedder_has_its_name_and_place(
    service: type[ChatSettings | StaffSettings],
    embedder: dict[str, str],
    name: str,
    folder: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_embedder(monkeypatch, embedder)
    read = service().embedder
    assert (read.name, read.folder) == (name, Path(folder) if folder else None)
    if "URL" in embedder:
        assert (str(read.url), read.key()) == ("https://embed.bank/", "k")


@pytest.mark.parametrize(
    ("tokenizer", "folder"), [({}, "/models/e5-small"), ({"TOKENIZER": "/models/bge-m3"}, "/models/bge-m3")]
)
def test_the_chunker_counts_by_the_tokenizer_of_the_embedder(
    tokenizer: dict[str, str], folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_embedder(monkeypatch, {"URL": "http://embed.bank", "MODEL": "bge-m3", **tokenizer})
    assert StaffSettings().tokenizer_folder == Path(folder)
