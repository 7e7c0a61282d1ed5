"""The embedding model's encoder as OpenVINO reads it: made once from the weights, and kept beside them.

It lies where sentence-transformers looks for it (`openvino/`), under a name that is a digest of the weights: other
weights are another file, and a file is there whole or not at all.
"""

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

PLACE = "openvino"
LONGEST_SECONDS = 300.0
"""After which a conversion is given up: it takes ten."""
MADE_OF = ("config.json", "*.safetensors", "pytorch_model*.bin")


class NotConverted(Exception):
    """The weights hold no encoder that OpenVINO can read; the message says why."""


def keep_encoder(folder: Path) -> Path:
    """Return the file that belongs to the weights in `folder`; make it where nobody has yet.

    Raises:
        NotConverted: the weights cannot be converted.
        OSError: the folder cannot be written.
    """
    file = folder / PLACE / f"openvino_model_{_digest(folder)}.xml"
    if not file.exists():
        file.parent.mkdir(exist_ok=True)
        with TemporaryDirectory(dir=file.parent, prefix=".unfinished-") as room:
            made = _convert(folder, Path(room))
            # The weights go first: whoever sees the file has both.
            made.with_suffix(".bin").rename(file.with_suffix(".bin"))
            made.rename(file)
    return file


@contextmanager
def encoder_file(folder: Path) -> Iterator[Path]:
    """Lend the file that belongs to the weights; from a temporary folder where theirs cannot be written.

    Raises:
        NotConverted: the weights cannot be converted.
    """
    try:
        kept = keep_encoder(folder)
    except OSError:
        with TemporaryDirectory() as room:
            yield _convert(folder, Path(room))
        return
    yield kept


def _digest(folder: Path) -> str:
    files = sorted(file for pattern in MADE_OF for file in folder.rglob(pattern))
    if not any(file.suffix != ".json" for file in files):
        raise NotConverted(f"there are no weights in {folder}")
    together = hashlib.sha256()
    for file in files:
        with file.open("rb") as opened:
            together.update(hashlib.file_digest(opened, "sha256").digest())
    return together.hexdigest()[:16]


def _convert(folder: Path, room: Path) -> Path:
    made = room / "openvino_model.xml"
    command = [sys.executable, "-m", "knowledge.embedding.openvino_export", str(folder), str(made)]
    try:
        done = subprocess.run(command, capture_output=True, check=False, text=True, timeout=LONGEST_SECONDS)  # noqa: S603
    except subprocess.TimeoutExpired as exc:
        raise NotConverted(f"converting the weights took more than {LONGEST_SECONDS:.0f} s") from exc
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise NotConverted(f"OpenVINO cannot convert the weights: {said[-1]}")
    return made
