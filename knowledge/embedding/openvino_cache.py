"""Finds the embedding model in OpenVINO's format, which `llm-server fetch` writes beside the weights.

A folder in `openvino/` contains the graph, its weights and the tokenizer. Its name is a digest of the source files, so
changed weights or settings need another conversion.
"""

import hashlib
from functools import lru_cache
from pathlib import Path

FOLDER = "openvino"
FORMAT = b"2"
"""The version of the conversion's output; changing it invalidates the converted folders."""
GRAPH = "model.xml"
TOKENIZER = "tokenizer.json"
SOURCES = ("*.json", "*.safetensors", "pytorch_model*.bin", "*.txt", "*.model")
"""The files that sentence-transformers reads from a model's folder: settings, weights, vocabularies."""
WEIGHTS = (".safetensors", ".bin")


class NotConverted(Exception):
    """The weights are not converted or cannot be; the message says why."""


def converted_folder(folder: Path) -> Path:
    """Return the folder for the converted model of the weights in `folder`, which may not exist yet.

    Raises:
        NotConverted: there are no weights.
    """
    return folder / FOLDER / _digest(folder)


def cached_model(folder: Path) -> Path:
    """Return the folder of the converted model of the weights in `folder`.

    Raises:
        NotConverted: the weights are not converted.
    """
    converted = converted_folder(folder)
    if not converted.exists():
        raise NotConverted(
            f"the weights are not converted for OpenVINO: run `llm-server fetch {folder}` where sentence-transformers "
            "is installed"
        )
    return converted


def _digest(folder: Path) -> str:
    """Return a digest of the model's source files and FORMAT; raise NotConverted if there are no weights."""
    source_files = sorted({file for pattern in SOURCES for file in folder.rglob(pattern)})
    files = [file for file in source_files if FOLDER not in file.relative_to(folder).parts]
    if not any(file.suffix in WEIGHTS for file in files):
        raise NotConverted(f"there are no weights in {folder}")
    digest = hashlib.sha256(FORMAT)
    for file in files:
        digest.update(f"{file.relative_to(folder)}\0".encode())
        stat = file.stat()
        digest.update(_file_digest(file, (stat.st_ino, stat.st_size, stat.st_mtime_ns)))
    return digest.hexdigest()[:16]


@lru_cache(maxsize=100)
def _file_digest(file: Path, _written: tuple[int, int, int]) -> bytes:
    """Return a file's SHA-256, cached by inode, size and modification time, because the weights take 0.5 s."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").digest()
