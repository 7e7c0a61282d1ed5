"""Both services read the same place of the embedder from the environment, and their own default without one."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from chatbot.settings import Settings as ChatSettings
from ingest.settings import Settings as StaffSettings

REQUIRED = {"REDIS_URL": "redis://127.0.0.1", "AUDIT_KEY": "k" * 32, "AUTH__ISSUER": "i", "AUTH__AUDIENCE": "a"}


@pytest.fixture(params=[ChatSettings, StaffSettings], ids=["chatbot", "ingest"])
def service(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> type[ChatSettings | StaffSettings]:
    for name, value in REQUIRED.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AUTH__JWKS_URL", "http://127.0.0.1/keys")
    service: type[ChatSettings | StaffSettings] = request.param
    return service


Service = type[ChatSettings | StaffSettings]


def test_without_a_place_it_is_the_folder_of_weights(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEIGHTS_DIR", "/models")
    monkeypatch.setenv("EMBEDDER__DTYPE", "float32")
    embedder = service().embedder
    assert (embedder.folder, embedder.name, embedder.dtype) == (
        Path("/models/e5-small"),
        "e5-small",
        "float32",
    )


def test_an_endpoint_is_named_with_its_key(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"URL": "https://embed.bank", "MODEL": "bge-m3", "API_KEY": "k"}.items():
        monkeypatch.setenv(f"EMBEDDER__{name}", value)
    embedder = service().embedder
    assert (embedder.folder, str(embedder.url), embedder.name, embedder.key()) == (
        None,
        "https://embed.bank/",
        "bge-m3",
        "k",
    )


def test_a_hubs_model_lies_below_the_weights(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEIGHTS_DIR", "/models")
    monkeypatch.setenv("EMBEDDER__MODEL", "BAAI/bge-m3")
    monkeypatch.setenv("EMBEDDER__REVISION", "5617a9f61b028005a4858fdac845db406aefb181")
    embedder = service().embedder
    assert embedder.folder == Path("/models/BAAI--bge-m3@5617a9f61b02")
    assert embedder.name == "BAAI/bge-m3@5617a9f61b02"


def test_a_name_alone_is_refused(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDDER__MODEL", "BAAI/bge-m3")
    with pytest.raises(ValidationError, match="a model's name needs where it is"):
        service()


def test_the_chunker_counts_by_the_tokenizer_of_the_embedder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEIGHTS_DIR", "/models")
    monkeypatch.setenv("EMBEDDER__URL", "http://embed.bank")
    monkeypatch.setenv("EMBEDDER__MODEL", "bge-m3")
    assert StaffSettings().tokenizer_folder == Path("/models/e5-small")
    monkeypatch.setenv("EMBEDDER__TOKENIZER", "/models/bge-m3")
    assert StaffSettings().tokenizer_folder == Path("/models/bge-m3")
