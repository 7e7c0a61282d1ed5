"""OpenVINO computes the same vectors as torch; each set of weights is converted once."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import openvino
import pytest
from numpy.typing import NDArray

from knowledge.embedding.encoder import DType, LoadEncode, openvino_encoder, read_converted
from knowledge.embedding.openvino_cache import NotConverted, cached_model, convert_model
from tests.tiny_embedder import tiny_weights, write_model

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


@CONVERTED_HERE
def test_other_weights_are_converted_to_another_folder(tiny: Path, tmp_path: Path) -> None:
    mine, other = tmp_path / "mine", tmp_path / "other"
    shutil.copytree(tiny, mine)
    before = cached_model(mine)
    write_model(other)
    shutil.copy(other / "model.safetensors", mine)
    with pytest.raises(NotConverted, match=f"run `llm-server fetch {mine}`"):
        cached_model(mine)
    convert_model(mine)
    assert cached_model(mine) != before
    assert len(list(cached_model(mine).parent.iterdir())) == 2, "nothing unfinished is left"
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


@CONVERTED_HERE
@pytest.mark.parametrize("pooling", ["cls", "max", "lasttoken"])
def test_the_pooling_is_that_of_the_model(tmp_path: Path, export: ModuleType, pooling: "Pooling") -> None:
    folder, converted = tmp_path / pooling, tmp_path / "converted"
    write_model(folder, pooling=pooling)
    converted.mkdir()
    export.convert(folder, converted)
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
    with pytest.raises(NotConverted, match=r"its vectors are not those of sentence-transformers \(cosine"):
        export.convert(tiny, tmp_path)


@CONVERTED_HERE
def test_broken_weights_are_not_converted(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(tiny, folder)
    (folder / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(NotConverted, match=r"OpenVINO cannot convert the weights in .*broken: .*header"):
        convert_model(folder)
    assert not [file for file in (folder / "openvino").iterdir() if file.name.startswith(".")]
