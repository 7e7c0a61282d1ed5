"""The embedder's tokenizer, which the chunker counts with."""

from functools import cache
from pathlib import Path

from tokenizers import Tokenizer


class WeightsMissing(Exception):
    """The embedder's folder is missing; the message says how to fetch it."""


def require_tokenizer(folder: Path) -> Path:
    """Return the file of the tokenizer in an embedder's folder.

    Raises:
        WeightsMissing: it is missing.
    """
    file = folder / "tokenizer.json"
    if not file.exists():
        raise WeightsMissing(
            f"the embedding model's tokenizer is missing in {folder}: run `llm-server fetch e5-small`, or set "
            "EMBEDDER__FOLDER or EMBEDDER__TOKENIZER"
        )
    return file


@cache
def open_tokenizer(folder: Path) -> Tokenizer:
    """Return the tokenizer of an embedder's folder, which stays as it is.

    Raises:
        WeightsMissing: it is missing.
    """
    return Tokenizer.from_file(str(require_tokenizer(folder)))
