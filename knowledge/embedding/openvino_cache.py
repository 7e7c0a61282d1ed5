"""The embedding model's encoder in OpenVINO's format, converted once and cached beside the weights.

The file has the place that sentence-transformers expects (`openvino/`) and a name with a digest of the weights, so that
other weights have another file. It appears by a rename, so it is always complete.
"""

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

FOLDER = "openvino"
CONVERSION_TIMEOUT = 300.0
"""Seconds; a conversion takes ten."""
SOURCES = ("config.json", "*.safetensors", "pytorch_model*.bin")


class NotConverted(Exception):
    """The weights cannot be converted; the message says why."""


def cached_encoder(folder: Path) -> Path:
    """Return the cached file of the weights in `folder`; convert them where it is missing.

    Raises:
        NotConverted: the weights cannot be converted.
        OSError: the folder cannot be written.
    """
    file = folder / FOLDER / f"openvino_model_{_digest(folder)}.xml"
    if not file.exists():
        file.parent.mkdir(exist_ok=True)
        with TemporaryDirectory(dir=file.parent, prefix=".unfinished-") as unfinished:
            converted = _convert(folder, Path(unfinished))
            # The weights first: a process that sees the .xml file has both.
            converted.with_suffix(".bin").rename(file.with_suffix(".bin"))
            converted.rename(file)
    return file


@contextmanager
def encoder_file(folder: Path) -> Iterator[Path]:
    """Yield the file of the weights; a temporary one where their folder cannot be written.

    Raises:
        NotConverted: the weights cannot be converted.
    """
    try:
        cached = cached_encoder(folder)
    except OSError:
        with TemporaryDirectory() as temporary:
            yield _convert(folder, Path(temporary))
        return
    yield cached


def _digest(folder: Path) -> str:
    files = sorted(file for pattern in SOURCES for file in folder.rglob(pattern))
    if not any(file.suffix != ".json" for file in files):
        raise NotConverted(f"there are no weights in {folder}")
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()[:16]


def _convert(folder: Path, target: Path) -> Path:
    file = target / "openvino_model.xml"
    command = [sys.executable, "-m", "knowledge.embedding.openvino_export", str(folder), str(file)]
    try:
        finished = subprocess.run(command, capture_output=True, check=False, text=True, timeout=CONVERSION_TIMEOUT)  # noqa: S603
    except subprocess.TimeoutExpired as exc:
        raise NotConverted(f"converting the weights took more than {CONVERSION_TIMEOUT:.0f} s") from exc
    if finished.returncode != 0:
        errors = finished.stderr.strip().splitlines() or [f"exit status {finished.returncode}"]
        raise NotConverted(f"OpenVINO cannot convert the weights: {errors[-1]}")
    return file
