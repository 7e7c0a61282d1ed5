"""Computes vectors with OpenVINO on a CPU from a converted model (`openvino_cache`), without torch or transformers."""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import openvino
from tokenizers import Tokenizer

from knowledge.embedding.openvino_cache import GRAPH, TOKENIZER

DType = Literal["bfloat16", "float32"]
Vectors = list[list[float]]
Encode = Callable[[list[str]], Vectors]
"""Returns one vector of length 1 for each text, in order; not thread-safe."""
LoadEncode = Callable[[], Encode]
"""Returns an `Encode` for the calling thread."""
_DEVICE = "CPU"


def compile_encoder(converted: Path, dtype: DType, *, workers: int, threads: int, batch: int) -> LoadEncode:
    """Compile the model; return a function that each worker calls once for its own `encode`.

    Each of the concurrent `workers` has `threads` OpenVINO threads and encodes `batch` texts at a time. They share the
    model and the tokenizer, which are read-only. The folder may be deleted afterwards.

    Raises:
        OSError, RuntimeError: the converted model cannot be read or compiled.
    """
    core = openvino.Core()
    options = {
        "INFERENCE_PRECISION_HINT": _precision(dtype, core.get_property(_DEVICE, "OPTIMIZATION_CAPABILITIES")),
        "NUM_STREAMS": workers,
        "INFERENCE_NUM_THREADS": workers * threads,
        "ENABLE_CPU_PINNING": False,  # vLLM and this service use the cores too
        # OpenVINO compiles a kernel of 0.7 MB for each shape (batch, length), and by default caches thousands of them.
        # A cached kernel saves 2 ms.
        "CPU_RUNTIME_CACHE_CAPACITY": 64,
    }
    tokenizer = read_tokenizer(converted)
    model = core.compile_model(converted / GRAPH, _DEVICE, options)

    def open_request() -> Encode:
        request = model.create_infer_request()

        def encode(texts: list[str]) -> Vectors:
            vectors: list[list[float]] = [[]] * len(texts)
            # Texts of similar length need little padding in a batch.
            longest_first = sorted(range(len(texts)), key=lambda n: -len(texts[n]))
            for start in range(0, len(texts), batch):
                part = longest_first[start : start + batch]
                encodings = tokenizer.encode_batch_fast([texts[n] for n in part])
                inputs = {
                    "input_ids": np.array([encoding.ids for encoding in encodings], np.int64),
                    "attention_mask": np.array([encoding.attention_mask for encoding in encodings], np.int64),
                }
                (computed,) = request.infer(inputs, share_inputs=True, share_outputs=True).values()
                for n, vector in zip(part, computed.tolist(), strict=True):
                    vectors[n] = vector
            return vectors

        return encode

    return open_request


@cache
def read_tokenizer(converted: Path) -> Tokenizer:
    """Return the tokenizer of a converted model; a vocabulary of 250,000 takes a second to load."""
    return Tokenizer.from_file(str(converted / TOKENIZER))


def _precision(dtype: DType, capabilities: Sequence[str]) -> str:
    """Return OpenVINO's name for the precision: float32 if the device lacks bfloat16.

    On CPUs whose AVX-512 lacks bfloat16 (Intel before Cooper Lake, and Ice Lake), OpenVINO would emulate it, 14 to 35
    times slower than float32.
    """
    return "bf16" if dtype == "bfloat16" and "BF16" in capabilities else "f32"
