"""OpenVINO computes the same vectors as torch."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import openvino
import pytest

from knowledge.embedding.encoder import DType, LoadEncode, compile_encoder
from knowledge.embedding.openvino_cache import cached_model
from tests.tiny_embedder import Vectors, by_torch, cosines, of_torch, tiny_weights

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

SHORT = [
    "query: 금리",
    "query: What is the fee for an overseas remittance?",
    "passage: 정기예금을 중도에 해지하면 약정 이율 대신 중도해지 이율이 적용됩니다. " * 3,
]
TEXTS = [SHORT[0], SHORT[2], "passage: A transfer to another bank costs 500 won at a branch. " * 60]
"""From four tokens to more than the model's limit; in one batch, nearly all of the first is padding."""


def loader(folder: Path, dtype: DType, *, workers: int = 1, batch: int = 16) -> LoadEncode:
    return compile_encoder(cached_model(folder), dtype, workers=workers, threads=1, batch=batch)


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
def test_bfloat16_is_used_only_on_machines_that_have_it(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, dtype: DType, native: list[str], computed: str
) -> None:
    """With AVX-512 but no bfloat16, OpenVINO would emulate it, many times slower than float32."""
    precisions: list[object] = []
    real = openvino.Core()

    class Machine:
        def get_property(self, device: str, name: str) -> list[str]:
            return [*(set(real.get_property(device, name)) - {"BF16"}), *native]

        def compile_model(self, model: Path, device: str, options: dict[str, object]) -> openvino.CompiledModel:
            precisions.append(options["INFERENCE_PRECISION_HINT"])
            return real.compile_model(model, device, {**options, "INFERENCE_PRECISION_HINT": "f32"})

    monkeypatch.setattr(openvino, "Core", Machine)
    loader(tiny, dtype)
    assert precisions == [computed]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_weights(tmp_path_factory.getbasetemp()) / "e5-small"


def test_memory_is_bounded_for_texts_of_many_lengths(tiny: Path) -> None:
    encode = loader(tiny, "bfloat16")()
    used = []
    for texts in range(1, 13):  # each round has 100 shapes that OpenVINO has not seen
        for length in range(10, 310, 3):
            encode(["x" * length] * texts)
        used.append(resident())
    # The first rounds warm up OpenVINO's other buffers: how much they take depends on the CPU.
    assert used[-1] - used[5] < 100, "MiB; without a bound, OpenVINO keeps 0.4 or more for each of 600 shapes"


def resident() -> int:
    """Return this process's anonymous memory in MiB."""
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) // 1024
