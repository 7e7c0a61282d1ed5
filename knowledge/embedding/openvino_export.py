"""Converts the encoder of a sentence-transformers model to OpenVINO's format.

    python -m knowledge.embedding.openvino_export WEIGHTS FILE.xml

A program of its own: tracing and conversion leave 700 MB allocated in their process.
"""

import sys
from typing import Any

import openvino
import torch
import transformers
from sentence_transformers import SentenceTransformer

EXAMPLES = ["one", "two and three"]


class _LastLayer(torch.nn.Module):
    """The output of an encoder that sentence-transformers uses."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self._encoder = encoder

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        layer: torch.Tensor = self._encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return layer


def convert(weights: str, file: str) -> None:
    """Write `file` and, beside it, its weights as float16, which loses nothing relevant of bfloat16."""
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # publishes no types
    model = SentenceTransformer(
        weights, device="cpu", local_files_only=True, model_kwargs={"dtype": torch.float32}
    ).eval()
    features = model.preprocess(EXAMPLES)
    example = {name: features[name] for name in ("input_ids", "attention_mask")}
    with torch.inference_mode():
        converted = openvino.convert_model(_LastLayer(model[0].model), example_input=example)
    openvino.save_model(converted, file)


if __name__ == "__main__":
    convert(*sys.argv[1:])
