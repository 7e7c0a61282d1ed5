"""The sentence-transformers model, with its encoder compiled by OpenVINO for a CPU, or run by torch on CUDA.

Tokenization, pooling and normalisation are sentence-transformers' own in both cases.
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
ModelLoader = Callable[[], SentenceTransformer]
"""Returns the model for the calling thread."""


def openvino_model(folder: Path, dtype: DType, *, workers: int, threads: int) -> ModelLoader:
    """Compile the encoder for concurrent worker threads, each with so many OpenVINO threads.

    The workers share one model. The first text configures its tokenizer, which is only read after that: let one worker
    begin alone.

    Raises:
        NotConverted: the weights cannot be converted.
        OSError, RuntimeError, ValueError, ...: the model cannot be read or compiled.
    """
    options = {
        "INFERENCE_PRECISION_HINT": {"bfloat16": "bf16", "float32": "f32"}[dtype],
        "NUM_STREAMS": workers,
        "INFERENCE_NUM_THREADS": workers * threads,
        "ENABLE_CPU_PINNING": False,  # vLLM and this service use the cores too
        # Kernels are compiled for each shape (batch, length), 0.7 MB each; by default OpenVINO keeps thousands. A kept
        # kernel saves 2 ms.
        "CPU_RUNTIME_CACHE_CAPACITY": 64,
    }
    with encoder_file(folder) as file:
        encoder = openvino.Core().compile_model(file, "CPU", options)
    # Our module replaces the one of modules.json: sentence-transformers' `backend` needs optimum-intel, and its public
    # constructor takes no module classes.
    module = json.loads((folder / "modules.json").read_text("utf-8"))[0]["type"]
    model = SentenceTransformer._load_with_module_classes(  # noqa: SLF001
        str(folder),
        {module: _CompiledTransformer},
        device="cpu",
        local_files_only=True,
        model_kwargs={"encoder": encoder},
    )

    def load() -> SentenceTransformer:
        torch.set_num_threads(1)  # of the calling thread, which only pools
        return model

    return load


def torch_model(folder: Path, dtype: DType, *, device: str, threads: int) -> ModelLoader:
    """Return a loader of a torch model on `device`, one for each thread."""

    def load() -> SentenceTransformer:
        torch.set_num_threads(threads)  # of the calling thread
        transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # publishes no types
        return SentenceTransformer(
            str(folder), device=device, local_files_only=True, model_kwargs={"dtype": getattr(torch, dtype)}
        )

    return load


class _CompiledTransformer(Transformer):
    """sentence-transformers' module without weights, which the compiled encoder has."""

    def _load_model(self, *arguments: Any, **model_kwargs: Any) -> Any:
        return _Encoder(model_kwargs["encoder"], config=arguments[2])


class _Encoder(torch.nn.Module):
    """The compiled encoder as a torch module; each thread has an inference request of its own."""

    def __init__(self, encoder: openvino.CompiledModel, config: PreTrainedConfig) -> None:
        super().__init__()
        self.config = config
        self._encoder = encoder
        self._thread = local()

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **_: object) -> BaseModelOutput:
        if not hasattr(self._thread, "request"):
            self._thread.request = self._encoder.create_infer_request()
        inputs = {"input_ids": input_ids.numpy(), "attention_mask": attention_mask.numpy()}
        # Nothing is copied: pooling has read the layer before this thread's next inference.
        (layer,) = self._thread.request.infer(inputs, share_inputs=True, share_outputs=True).values()
        return BaseModelOutput(last_hidden_state=torch.from_numpy(layer))
