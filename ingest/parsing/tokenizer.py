"""The embedder's tokenizer, with which the chunker counts."""

from pathlib import Path

from tokenizers import Tokenizer


class WeightsMissing(Exception):
    """The embedder's folder is not there; the message says how to get it."""


def open_tokenizer(folder: Path) -> Tokenizer:
    """Return the tokenizer of an embedder's folder.

    Raises:
        WeightsMissing: it is not there.
    """
    file = folder / "tokenizer.json"
    if not file.exists():
        raise WeightsMissing(f"the embedding model is missing in {folder}: run `llm-server fetch e5-small`")
    return Tokenizer.from_file(str(file))
