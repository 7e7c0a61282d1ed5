"""The embedding model in OpenVINO's format, converted once and cached beside the weights.

A folder in `openvino/` contains the graph, its weights and the tokenizer. Its name is a digest of the source files, so
changed weights or settings get another folder. It is created by a rename, so it is always complete; if several
processes convert at once, the first one's folder stays.
"""

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

FOLDER = "openvino"
FORMAT = b"2"
"""The version of the conversion's output; a change of it makes new folders."""
GRAPH = "model.xml"
TOKENIZER = "tokenizer.json"
CONVERSION_TIMEOUT = 300.0
"""In seconds; a conversion takes about ten."""
SOURCES = ("*.json", "*.safetensors", "pytorch_model*.bin", "*.txt", "*.model")
"""The files that sentence-transformers reads from a model's folder: settings, weights, vocabularies."""
WEIGHTS = (".safetensors", ".bin")


class NotConverted(Exception):
    """The weights cannot be converted; the message says why."""


def cached_model(folder: Path) -> Path:
    """Return the folder of the converted model of the weights in `folder`; convert them if necessary.

    Raises:
        NotConverted: the weights cannot be converted.
        OSError: the folder cannot be written.
    """
    cached = folder / FOLDER / _digest(folder)
    if not cached.exists():
        cached.parent.mkdir(exist_ok=True)
        _convert_into(cached, folder)
    return cached


def _convert_into(cached: Path, folder: Path) -> None:
    with TemporaryDirectory(dir=cached.parent, prefix=".unfinished-") as unfinished:
        converted = _convert(folder, Path(unfinished) / cached.name)
        try:
            converted.rename(cached)
        except OSError:
            if not cached.exists():  # else another process was faster
                raise


@contextmanager
def converted_model(folder: Path) -> Iterator[Path]:
    """Yield the folder of the converted model; a temporary one if the weights' folder is not writable.

    Raises:
        NotConverted: the weights cannot be converted.
    """
    try:
        cached = cached_model(folder)
    except OSError:
        with TemporaryDirectory() as temporary:
            yield _convert(folder, Path(temporary) / FOLDER)
        return
    yield cached


def _digest(folder: Path) -> str:
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
    """Return a file's SHA-256, cached by inode, size and modification time, because weights take half a second."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").digest()


def _convert(folder: Path, target: Path) -> Path:
    if find_spec("sentence_transformers") is None:
        raise NotConverted(
            f"the weights are not converted for OpenVINO, and no sentence-transformers is installed here to do so: "
            f"run `llm-server fetch {folder.name}` where it is"
        )
    target.mkdir()
    command = [sys.executable, "-m", "knowledge.embedding.openvino_export", str(folder), str(target)]
    try:
        finished = subprocess.run(command, capture_output=True, check=False, text=True, timeout=CONVERSION_TIMEOUT)  # noqa: S603
    except subprocess.TimeoutExpired as exc:
        raise NotConverted(f"converting the weights took more than {CONVERSION_TIMEOUT:.0f} s") from exc
    if finished.returncode != 0:
        errors = finished.stderr.strip().splitlines() or [f"exit status {finished.returncode}"]
        raise NotConverted(f"OpenVINO cannot convert the weights: {errors[-1]}")
    return target
