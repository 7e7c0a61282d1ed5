"""An embedder is converted once for its weights, to vectors that sentence-transformers computes too."""

import json
import shutil
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import pytest

from knowledge.embedding import NotConverted, cached_model, compile_encoder
from tests.tiny_embedder import Vectors, by_torch, cosines, of_torch, tiny_weights, write_model

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from tests.tiny_bert import Pooling

TEXTS = ["query: fee", "passage: a longer text about fees"]


def by_openvino(converted: Path, texts: list[str]) -> Vectors:
    return np.array(compile_encoder(converted, "float32", workers=1, threads=1, batch=2)()(texts), np.float32)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_weights(tmp_path_factory.getbasetemp()) / "e5-small"


@pytest.fixture(scope="module")
def export() -> ModuleType:
    """The conversion module, imported late, because torch takes seconds in each process that collects tests."""
    return import_module("llm_server.conversion")


# In this process, which has imported torch already: for a process of its own that is most of the time.
CONVERTED_HERE = pytest.mark.filterwarnings("ignore")
"""What torch and transformers warn of while they trace is not ours."""


@CONVERTED_HERE
def test_other_weights_are_converted_to_another_folder(tiny: Path, tmp_path: Path, export: ModuleType) -> None:
    mine, other = tmp_path / "mine", tmp_path / "other"
    shutil.copytree(tiny, mine)
    before = cached_model(mine)
    write_model(other)
    shutil.copy(other / "model.safetensors", mine)
    with pytest.raises(NotConverted, match=f"run `llm-server fetch {mine}`"):
        cached_model(mine)
    export.convert_model(mine)
    assert cached_model(mine) != before
    assert len(list(cached_model(mine).parent.iterdir())) == 2, "nothing unfinished is left"
    assert cosines(by_openvino(cached_model(mine), TEXTS), by_torch(of_torch(mine), TEXTS)).min() > 0.9999


@CONVERTED_HERE
@pytest.mark.parametrize("pooling", ["cls", "lasttoken"])
def test_the_pooling_is_that_of_the_model(tmp_path: Path, export: ModuleType, pooling: "Pooling") -> None:
    folder, converted = tmp_path / pooling, tmp_path / "converted"
    write_model(folder, pooling=pooling)
    converted.mkdir()
    export.convert(folder, converted)
    assert cosines(by_openvino(converted, TEXTS), by_torch(of_torch(folder), TEXTS)).min() > 0.9999


@CONVERTED_HERE
def test_a_conversion_that_changes_the_vectors_is_refused(
    tiny: Path, tmp_path: Path, export: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = export._save_tokenizer

    def save_one_of_capitals(model: "SentenceTransformer", file: Path) -> None:
        save(model, file)
        saved = json.loads(file.read_text("utf-8"))
        saved["normalizer"] = {"type": "Lowercase"}
        file.write_text(json.dumps(saved), "utf-8")

    monkeypatch.setattr(export, "_save_tokenizer", save_one_of_capitals)
    with pytest.raises(ValueError, match=r"its vectors are not those of sentence-transformers \(cosine"):
        export.convert(tiny, tmp_path)


@CONVERTED_HERE
def test_broken_weights_are_not_converted(tiny: Path, tmp_path: Path, export: ModuleType) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(tiny, folder)
    (folder / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(NotConverted, match=r"OpenVINO cannot convert the weights in .*broken: .*header"):
        export.convert_model(folder)
    assert not [file for file in (folder / "openvino").iterdir() if file.name.startswith(".")]
