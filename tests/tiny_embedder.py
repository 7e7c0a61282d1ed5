"""An embedding model with random weights, written in a second, for the real code path; and a real one under another
name."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from knowledge.embedding import Embedder
from tests.conftest import made_once

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from tests.tiny_bert import Pooling


Vectors = NDArray[np.float32]


class Renamed:
    """The real embedder with another name or dimensions."""

    def __init__(self, real: Embedder, *, name: str, dimensions: int) -> None:
        self.name = name
        self.dimensions = dimensions
        self.embed_queries = real.embed_queries
        self.embed_passages = real.embed_passages


def write_model(folder: Path, *, pooling: "Pooling" = "mean") -> None:
    """Write a random BERT of one layer over bytes, as a sentence-transformers folder."""
    from tests.tiny_bert import write_bert  # noqa: PLC0415  torch takes seconds in each process that collects a test

    write_bert(folder, pooling)


def tiny_weights(base: Path) -> Path:
    """Return a weights folder whose e5-small is a converted random model, shared by all workers (`made_once`)."""
    return made_once(base, "tiny-weights", _write_weights)


def copy_unconverted(model: Path, folder: Path) -> None:
    """Copy a model without its conversion; writing a new one would import torch, which takes four seconds."""
    shutil.copytree(model, folder, ignore=shutil.ignore_patterns("openvino"))


def _write_weights(folder: Path) -> None:
    # A separate process, because torch's memory would stay allocated.
    command = [sys.executable, "-m", "tests.converted_here", str(folder / "e5-small")]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  our own
    assert finished.returncode == 0, finished.stderr


def of_torch(folder: Path) -> "SentenceTransformer":
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415  seconds, in each process that collects tests

    return SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": "float32"})


def by_torch(model: "SentenceTransformer", texts: list[str]) -> Vectors:
    vectors: Vectors = model.encode(texts, normalize_embeddings=True)
    return vectors


def cosines(one: Vectors, other: Vectors) -> Vectors:
    together: Vectors = (one * other).sum(axis=1)
    return together
