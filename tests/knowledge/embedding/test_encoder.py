"""OpenVINO computes the same vectors as torch; each set of weights is converted once."""

import json
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import openvino
import pytest
from numpy.typing import NDArray

from knowledge.embedding import openvino_cache
from knowledge.embedding.embedding import open_embedder
from knowledge.embedding.encoder import DType, LoadEncode, openvino_encoder, read_converted
from knowledge.embedding.errors import EmbedderMissing
from knowledge.embedding.openvino_cache import NotConverted, cached_model, converted_model
from knowledge.embedding.settings import EmbedderSettings
from tests.tiny_embedder import copy_unconverted, tiny_weights, write_model

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from tests.tiny_bert import Pooling

SHORT = [
    "query: 금리",
    "query: What is the fee for an overseas remittance?",
    "passage: 정기예금을 중도에 해지하면 약정 이율 대신 중도해지 이율이 적용됩니다. " * 3,
]
TEXTS = [SHORT[0], SHORT[2], "passage: A transfer to another bank costs 500 won at a branch. " * 60]
"""From four tokens to more than the model's limit; in one batch, nearly all of the first is padding."""

Vectors = NDArray[np.float32]


def loader(folder: Path, dtype: DType, *, workers: int = 1, batch: int = 16) -> LoadEncode:
    return openvino_encoder(folder, dtype, workers=workers, threads=1, batch=batch)


def by_openvino(folder: Path, dtype: DType, texts: list[str], *, batch: int = 16) -> Vectors:
    return np.array(loader(folder, dtype, batch=batch)()(texts), np.float32)


def of_torch(folder: Path) -> "SentenceTransformer":
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415  seconds, in each process that collects tests

    return SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": "float32"})


def by_torch(model: "SentenceTransformer", texts: list[str]) -> Vectors:
    vectors: Vectors = model.encode(texts, normalize_embeddings=True)
    return vectors


def cosines(one: Vectors, other: Vectors) -> Vectors:
    together: Vectors = (one * other).sum(axis=1)
    return together


@pytest.fixture(scope="module")
def e5_of_torch(weights: Path) -> "SentenceTransformer":
    return of_torch(weights)


@pytest.fixture(scope="module")
def theirs(e5_of_torch: "SentenceTransformer") -> Vectors:
    """The vectors of sentence-transformers."""
    return by_torch(e5_of_torch, TEXTS)


@pytest.mark.parametrize(("dtype", "least"), [("bfloat16", 0.9999), ("float32", 0.999999)])
def test_vectors_are_those_of_sentence_transformers(weights: Path, theirs: Vectors, dtype: DType, least: float) -> None:
    encode = loader(weights, dtype)()
    together = np.array(encode(TEXTS), np.float32)
    assert cosines(together, theirs).min() > least
    assert np.abs(np.linalg.norm(together, axis=1) - 1).max() < 1e-5
    alone = np.array([encode([text])[0] for text in TEXTS], np.float32)
    assert cosines(alone, theirs).min() > least, "padding counts"


def test_every_text_gets_its_own_vector_whatever_the_batches(weights: Path, e5_of_torch: "SentenceTransformer") -> None:
    texts = [f"query: {'이자 ' * (n % 4)}fee {n}" for n in range(12)]
    assert cosines(by_openvino(weights, "float32", texts, batch=5), by_torch(e5_of_torch, texts)).min() > 0.999999


def test_a_model_is_shared_by_threads(weights: Path) -> None:
    load = loader(weights, "bfloat16", workers=2)
    expected = np.array(load()(SHORT))

    def encode_often(_: int) -> float:
        encode = load()
        return min(float(cosines(np.array(encode(SHORT)), expected).min()) for _ in range(5))

    with ThreadPoolExecutor(2) as pool:
        assert min(pool.map(encode_often, range(2))) > 0.999


@pytest.mark.parametrize(
    ("dtype", "native", "computed"),
    [("bfloat16", ["BF16"], "bf16"), ("bfloat16", [], "f32"), ("float32", ["BF16"], "f32")],
)
def test_a_machine_computes_in_bfloat16_only_where_it_has_it(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, dtype: DType, native: list[str], computed: str
) -> None:
    """With AVX-512 but no bfloat16, OpenVINO would emulate it, many times slower than float32."""
    asked: list[object] = []
    real = openvino.Core()

    class Machine:
        def get_property(self, device: str, name: str) -> list[str]:
            return [*(set(real.get_property(device, name)) - {"BF16"}), *native]

        def compile_model(self, model: Path, device: str, options: dict[str, object]) -> openvino.CompiledModel:
            asked.append(options["INFERENCE_PRECISION_HINT"])
            return real.compile_model(model, device, {**options, "INFERENCE_PRECISION_HINT": "f32"})

    monkeypatch.setattr(openvino, "Core", Machine)
    loader(tiny, dtype)
    assert asked == [computed]


def test_openvino_sends_no_telemetry() -> None:
    assert find_spec("openvino") is not None
    assert find_spec("openvino_telemetry") is None, "requirements/never.txt keeps it out"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_weights(tmp_path_factory.getbasetemp()) / "e5-small"


@pytest.fixture(scope="module")
def export() -> ModuleType:
    """The conversion module, imported late, because torch takes seconds in each process that collects tests."""
    return import_module("knowledge.embedding.openvino_export")


# In this process, which has imported torch already: for a process of its own that is most of the time.
CONVERTED_HERE = pytest.mark.filterwarnings("ignore")
"""What torch and transformers warn of while they trace is not ours."""


def converting_by(script: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a shell script in place of the conversion program, whose imports alone take seconds."""
    program = folder / "python"
    program.write_text(f"#!/bin/sh\n{script}\n", "utf-8")
    program.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(program))


def copying(tiny: Path) -> str:
    """Return a script that copies the conversion program's earlier output for this model."""
    (converted,) = (tiny / "openvino").iterdir()
    return f'cp {converted}/* "$4"'


def test_the_file_is_converted_once_and_of_concurrent_callers_the_first_ones_stays(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, begun = tmp_path / "tiny", tmp_path / "begun"
    copy_unconverted(tiny, folder)
    wait = f"until [ $(wc -l < {begun}) = 2 ]; do sleep 0.01; done"
    converting_by(f"echo >> {begun}\n{wait}\n{copying(tiny)}", tmp_path, monkeypatch)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(cached_model, [folder, folder])
    assert first == second
    assert list(first.parent.iterdir()) == [first], "nothing unfinished is left"
    assert sorted(file.name for file in first.iterdir()) == ["model.bin", "model.xml", "tokenizer.json"]
    assert cached_model(folder) == first
    assert begun.read_text("utf-8") == "\n\n", "what is there is not converted again"


@CONVERTED_HERE
def test_other_weights_are_another_file(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.knowledge.embedding.converted_here import convert_here  # noqa: PLC0415  torch

    monkeypatch.setattr(openvino_cache, "_convert", convert_here)
    mine, other = tmp_path / "mine", tmp_path / "other"
    shutil.copytree(tiny, mine)
    before = cached_model(mine)
    write_model(other)
    shutil.copy(other / "model.safetensors", mine)
    assert cached_model(mine) != before
    texts = ["query: fee", "passage: a longer text about fees"]
    assert cosines(by_openvino(mine, "float32", texts), by_torch(of_torch(mine), texts)).min() > 0.9999


def test_many_lengths_do_not_add_up(tiny: Path) -> None:
    encode = loader(tiny, "bfloat16")()
    used = []
    for length in range(10, 500):
        encode(["x" * length])
        used.append(resident())
    assert used[-1] - used[250] < 80, "MiB; without a bound, OpenVINO keeps 0.7 for each length"


def resident() -> int:
    """Return this process's anonymous memory in MiB."""
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) // 1024


def test_where_the_weights_are_read_only_the_file_is_temporary(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "mounted"
    copy_unconverted(tiny, folder)
    converting_by(copying(tiny), tmp_path, monkeypatch)
    (folder / "openvino").touch()  # a file, so that no folder can be made here, not even by root
    with converted_model(folder) as converted:
        encode = read_converted(converted, "float32", workers=1, threads=1, batch=2)()
    assert not converted.exists()
    assert len(encode(["what is mapped stays"])[0]) == 32


@CONVERTED_HERE
@pytest.mark.parametrize("pooling", ["cls", "max", "lasttoken"])
def test_the_pooling_is_that_of_the_model(tmp_path: Path, export: ModuleType, pooling: "Pooling") -> None:
    folder, converted = tmp_path / pooling, tmp_path / "converted"
    write_model(folder, pooling=pooling)
    converted.mkdir()
    export.convert(str(folder), str(converted))
    texts = ["query: fee", "passage: a longer text about fees"]
    vectors = np.array(read_converted(converted, "float32", workers=1, threads=1, batch=2)()(texts), np.float32)
    assert cosines(vectors, by_torch(of_torch(folder), texts)).min() > 0.9999


@CONVERTED_HERE
def test_a_model_whose_vectors_the_conversion_changes_is_refused(
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
        export.convert(str(tiny), str(tmp_path))


@CONVERTED_HERE
def test_a_models_own_default_prompt_is_not_added_to_texts_that_have_their_prefix(
    tiny: Path, tmp_path: Path, export: ModuleType
) -> None:
    folder, converted = tmp_path / "prompted", tmp_path / "converted"
    copy_unconverted(tiny, folder)
    converted.mkdir()
    settings = folder / "config_sentence_transformers.json"
    prompts = {"prompts": {"query": "Represent this sentence: "}, "default_prompt_name": "query"}
    settings.write_text(json.dumps(json.loads(settings.read_text("utf-8")) | prompts), "utf-8")
    export.convert(str(folder), str(converted))
    assert (converted / "model.xml").exists()


def test_without_torch_the_converted_model_is_read_and_no_other(tiny: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    copy_unconverted(tiny, other)
    assert in_an_image_without_torch(tiny).stdout == "32\n"
    refused = in_an_image_without_torch(other)
    assert "no sentence-transformers is installed here" in refused.stderr
    assert "run `llm-server fetch other`" in refused.stderr


def in_an_image_without_torch(folder: Path) -> subprocess.CompletedProcess[str]:
    """Load a model in a process without the packages that are missing from the chatbot image."""
    program = """
import asyncio, sys
sys.modules |= {"torch": None, "transformers": None, "sentence_transformers": None}
from pathlib import Path
from knowledge.embedding import EmbedderSettings, open_embedder
async def main():
    async with open_embedder(EmbedderSettings(folder=Path(sys.argv[1]))) as embedder:
        print(embedder.dimensions)
asyncio.run(main())
"""
    return subprocess.run([sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=False)  # noqa: S603


@pytest.mark.anyio
@CONVERTED_HERE
async def test_weights_that_cannot_be_converted_stop_the_boot(
    tiny: Path, tmp_path: Path, export: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(tiny, folder)
    (folder / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(Exception, match="header") as raised:
        export.convert(str(folder), str(tmp_path))
    last = f"{raised.type.__name__}: {raised.value}"
    converting_by(f"echo 'Traceback (most recent call last):\n{last}' >&2\nexit 1", tmp_path, monkeypatch)
    reason = re.escape(f"broken cannot be loaded: OpenVINO cannot convert the weights: {last}")
    with pytest.raises(EmbedderMissing, match=reason):
        async with open_embedder(EmbedderSettings(folder=folder)):
            pass
    assert not [file for file in (folder / "openvino").iterdir() if file.name.startswith(".")]


def test_a_folder_without_weights_is_not_converted(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}", "utf-8")
    with pytest.raises(NotConverted, match="no weights"):
        cached_model(tmp_path)
