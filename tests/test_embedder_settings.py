"""The chunker counts by the tokenizer of the embedder's settings."""

from pathlib import Path

import pytest

from ingest.settings import Settings


@pytest.mark.parametrize(
    ("tokenizer", "folder"), [({}, "/models/e5-small"), ({"TOKENIZER": "/models/bge-m3"}, "/models/bge-m3")]
)
def test_the_chunker_counts_by_the_tokenizer_of_the_embedder(
    tokenizer: dict[str, str], folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEIGHTS_DIR", "/models")
    for name, value in {"URL": "http://embed.bank", "MODEL": "bge-m3", **tokenizer}.items():
        monkeypatch.setenv(f"EMBEDDER__{name}", value)
    assert Settings().tokenizer_folder == Path(folder)
