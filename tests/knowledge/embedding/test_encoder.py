"""OpenVINO computes the vectors of torch; its file is converted once for each weights."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import openvino
import pytest
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from knowledge.embedding.embedding import EmbedderMissing, EmbedderSettings, open_embedder
from knowledge.embedding.encoder import DType, openvino_model
from knowledge.embedding.openvino_cache import NotConverted, cached_encoder, encoder_file
from tests.tiny_embedder import write_model

TEXTS = [
    "query: 금리",
    "query: What is the fee for an overseas remittance?",
    "passage: 정기예금을 중도에 해지하면 약정 이율 대신 중도해지 이율이 적용됩니다. " * 3,
    "passage: A transfer to another bank costs 500 won at a branch and nothing in the app. " * 20,
    "passage: 주택담보대출의 한도와 금리는 담보 가치와 소득에 따라 정해집니다. " * 60,
]
"""From four tokens to more than the model reads; in one batch nearly all of the first is padding."""

Vectors = NDArray[np.float32]


def encoded(model: SentenceTransformer, texts: list[str]) -> Vectors:
    vectors: Vectors = model.encode(texts, normalize_embeddings=True, convert_to_tensor=True).float().numpy()
    return vectors


def by_torch(folder: Path, texts: list[str]) -> Vectors:
    return encoded(SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": torch.float32}), texts)


def cosines(one: Vectors, other: Vectors) -> Vectors:
    together: Vectors = (one * other).sum(axis=1)
    return together


@pytest.mark.parametrize(("dtype", "least"), [("bfloat16", 0.999), ("float32", 0.99999)])
def test_vectors_are_those_of_torch(weights: Path, dtype: DType, least: float) -> None:
    model = openvino_model(weights, dtype, workers=1, threads=1)()
    together = encoded(model, TEXTS)
    assert cosines(together, by_torch(weights, TEXTS)).min() > least
    alone = np.concatenate([encoded(model, [text]) for text in TEXTS])
    assert cosines(together, alone).min() > least, "padding counts"


def test_a_model_is_shared_by_threads(weights: Path) -> None:
    load = openvino_model(weights, "bfloat16", workers=2, threads=1)
    expected = encoded(load(), TEXTS)

    def encode_often(_: int) -> float:
        model = load()
        return min(float(cosines(encoded(model, TEXTS), expected).min()) for _ in range(3))

    with ThreadPoolExecutor(2) as pool:
        assert min(pool.map(encode_often, range(2))) > 0.999
    assert not list(load().parameters()), "the weights are in the compiled encoder alone"


def test_openvino_sends_no_telemetry() -> None:
    assert find_spec("openvino") is not None
    assert find_spec("openvino_telemetry") is None, "requirements/never.txt keeps it out"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "tiny"
    write_model(folder)
    return folder


def test_the_file_is_converted_once_by_concurrent_callers(tiny: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(cached_encoder, [tiny, tiny])
    assert first == second
    assert sorted(file.suffix for file in first.parent.iterdir()) == [".bin", ".xml"], "nothing unfinished is left"
    made = first.stat()
    assert cached_encoder(tiny) == first
    assert first.stat() == made


def test_other_weights_are_another_file(tiny: Path, tmp_path: Path) -> None:
    mine, other = tmp_path / "mine", tmp_path / "other"
    shutil.copytree(tiny, mine)
    before = cached_encoder(mine)
    write_model(other)
    shutil.copy(other / "model.safetensors", mine)
    assert cached_encoder(mine) != before
    texts = ["query: fee", "passage: a longer text about fees"]
    model = openvino_model(mine, "float32", workers=1, threads=1)()
    assert cosines(encoded(model, texts), by_torch(mine, texts)).min() > 0.9999


def test_many_lengths_do_not_add_up(tiny: Path) -> None:
    model = openvino_model(tiny, "bfloat16", workers=1, threads=1)()
    used = []
    for length in range(10, 500):
        model.encode(["x" * length])
        used.append(resident())
    assert used[-1] - used[250] < 80, "MiB; without a bound, OpenVINO keeps 0.7 for each length"


def resident() -> int:
    """Return this process's memory that no file backs, in MiB."""
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) // 1024


def test_where_the_weights_are_read_only_the_file_is_temporary(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mounted"
    shutil.copytree(tiny, folder, ignore=shutil.ignore_patterns("openvino"))
    (folder / "openvino").touch()  # a file, so that no folder can be made here, not even by root
    with encoder_file(folder) as file:
        assert file.is_file()
        encoder = openvino.Core().compile_model(file, "CPU")
    assert not file.exists()
    ids = np.ones((1, 4), dtype=np.int64)
    (layer,) = encoder({"input_ids": ids, "attention_mask": ids}).values()
    assert layer.shape == (1, 4, 32), "what is mapped stays"


@pytest.mark.anyio
async def test_weights_that_cannot_be_converted_stop_the_boot(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(tiny, folder)
    (folder / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(EmbedderMissing, match=r"broken cannot be loaded: OpenVINO cannot convert the weights: .+"):
        async with open_embedder(EmbedderSettings(folder=folder)):
            pass
    assert not [file for file in (folder / "openvino").iterdir() if file.name.startswith(".")]


def test_a_folder_without_weights_is_not_converted(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}", "utf-8")
    with pytest.raises(NotConverted, match="no weights"):
        cached_encoder(tmp_path)
