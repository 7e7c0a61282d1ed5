"""The embedding model by sentence-transformers: its encoder compiled by OpenVINO on a CPU, computed by torch on CUDA.

Tokens, pooling and normalisation are sentence-transformers' own either way.
"""

import json
from collections.abc import Callable
from pathlib import Path
from threading import local
from typing import Any, Literal

import openvino
import torch
import transformers
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Transformer
from transformers import PreTrainedConfig
from transformers.modeling_outputs import BaseModelOutput

from knowledge.embedding.openvino_cache import encoder_file

DType = Literal["bfloat16", "float32"]
Load = Callable[[], SentenceTransformer]
"""Returns the model for the thread that calls it."""


def compiled(folder: Path, dtype: DType, *, workers: int, threads: int) -> Load:
    """Compile the encoder for so many threads that encode side by side, `threads` of OpenVINO's for each.

    They share one model. Its tokenizer is set by the first text and only read after that: let one thread begin.

    Raises:
        NotConverted: the weights cannot be converted.
        OSError, RuntimeError, ValueError, ...: the model cannot be read or compiled.
    """
    options = {
        "INFERENCE_PRECISION_HINT": {"bfloat16": "bf16", "float32": "f32"}[dtype],
        "NUM_STREAMS": workers,
        "INFERENCE_NUM_THREADS": workers * threads,
        "ENABLE_CPU_PINNING": False,  # the cores are others' too: vLLM's, or this service's own
        # Kernels are compiled for each shape (batch, length), 0.7 MB; OpenVINO keeps thousands. Kept ones save 2 ms.
        "CPU_RUNTIME_CACHE_CAPACITY": 64,
    }
    with encoder_file(folder) as file:
        encoder = openvino.Core().compile_model(file, "CPU", options)
    # A class in place of the one that modules.json names: sentence-transformers' own `backend` needs optimum-intel.
    named = json.loads((folder / "modules.json").read_text("utf-8"))[0]["type"]
    model = SentenceTransformer._load_with_module_classes(  # noqa: SLF001
        str(folder), {named: _Compiled}, device="cpu", local_files_only=True, model_kwargs={"encoder": encoder}
    )

    def load() -> SentenceTransformer:
        torch.set_num_threads(1)  # of the calling thread, which only pools
        return model

    return load


def computed(folder: Path, dtype: DType, *, device: str, threads: int) -> Load:
    """Let torch compute on `device`, a model for each thread."""

    def load() -> SentenceTransformer:
        torch.set_num_threads(threads)  # of the calling thread
        transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # publishes no types
        return SentenceTransformer(
            str(folder), device=device, local_files_only=True, model_kwargs={"dtype": getattr(torch, dtype)}
        )

    return load


class _Compiled(Transformer):
    """sentence-transformers' module without weights: the compiled encoder has them."""

    def _load_model(self, *given: Any, **model_kwargs: Any) -> Any:
        return _Encoder(model_kwargs["encoder"], config=given[2])


class _Encoder(torch.nn.Module):
    """What stands for the torch encoder; each thread has a request of its own."""

    def __init__(self, encoder: openvino.CompiledModel, config: PreTrainedConfig) -> None:
        super().__init__()
        self.config = config
        self._encoder = encoder
        self._mine = local()

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **_: object) -> BaseModelOutput:
        if not hasattr(self._mine, "request"):
            self._mine.request = self._encoder.create_infer_request()
        asked = {"input_ids": input_ids.numpy(), "attention_mask": attention_mask.numpy()}
        # Nothing is copied: pooling has read the layer before this thread asks again.
        (layer,) = self._mine.request.infer(asked, share_inputs=True, share_outputs=True).values()
        return BaseModelOutput(last_hidden_state=torch.from_numpy(layer))
