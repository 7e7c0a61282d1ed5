"""Converts a whole sentence-transformers model, from token ids to vectors of length 1, to OpenVINO's format.

Import this module only where it is used, because torch takes seconds to load.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import openvino
import torch
import transformers
from safetensors import SafetensorError
from sentence_transformers import SentenceTransformer

from knowledge.embedding import GRAPH, TOKENIZER, NotConverted, compile_encoder, converted_folder

INPUTS = ("input_ids", "attention_mask")
EXAMPLES = ["one", "two and three"]
CHECK_TEXTS = [
    "금리",
    "What is the fee for an overseas remittance?",
    "정기예금을 중도에 해지하면 약정 이율 대신 중도해지 이율이 적용됩니다. " * 4,
    "A transfer to another bank costs 500 won at a branch. " * 200,
]
"""The texts whose vectors are compared: from one token to above a model's limit, with much padding in one batch."""
LEAST_COSINE = 0.9999


class _Vectors(torch.nn.Module):
    """All modules of a sentence-transformers model, with the normalisation of `normalize_embeddings`."""

    def __init__(self, model: SentenceTransformer) -> None:
        super().__init__()
        self._model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        features = self._model({"input_ids": input_ids, "attention_mask": attention_mask})
        return torch.nn.functional.normalize(features["sentence_embedding"], dim=1)


def convert_model(folder: Path) -> None:
    """Convert the weights in a folder; the result appears by a rename, so it is always complete.

    Raises:
        NotConverted: the weights cannot be converted, or the graph's vectors differ from sentence-transformers'.
        OSError: the folder cannot be written.
    """
    converted = converted_folder(folder)
    converted.parent.mkdir(exist_ok=True)
    with TemporaryDirectory(dir=converted.parent, prefix=".unfinished-") as unfinished:
        target = Path(unfinished) / converted.name
        target.mkdir()
        try:
            convert(folder, target)
        except (ValueError, KeyError, RuntimeError, SafetensorError) as exc:
            raise NotConverted(f"OpenVINO cannot convert the weights in {folder}: {exc}") from exc
        target.rename(converted)


def convert(weights: Path, folder: Path) -> None:
    """Write the graph, its weights as float16 (no relevant loss against bfloat16) and the tokenizer to `folder`."""
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # publishes no types
    model = SentenceTransformer(
        str(weights), device="cpu", local_files_only=True, model_kwargs={"dtype": torch.float32}
    ).eval()
    example = model.preprocess(EXAMPLES)
    with torch.inference_mode():
        converted = openvino.convert_model(_Vectors(model), example_input={name: example[name] for name in INPUTS})
    openvino.save_model(converted, folder / GRAPH)
    _save_tokenizer(model, folder / TOKENIZER)
    _check_vectors(model, folder)


def _save_tokenizer(model: SentenceTransformer, file: Path) -> None:
    """Write the tokenizer with its truncation length and padding."""
    source = model.tokenizer
    tokenizer = source.backend_tokenizer
    tokenizer.enable_truncation(model.max_seq_length, direction=source.truncation_side)
    tokenizer.enable_padding(direction=source.padding_side, pad_id=source.pad_token_id, pad_token=source.pad_token)
    tokenizer.save(str(file), pretty=False)


def _check_vectors(model: SentenceTransformer, folder: Path) -> None:
    """Load the written model as services do, and compare its vectors with those of sentence-transformers.

    Raises:
        ValueError: the vectors differ.
    """
    encode = compile_encoder(folder, "float32", workers=1, threads=1, batch=len(CHECK_TEXTS))()
    ours = np.array(encode(CHECK_TEXTS))
    theirs = model.encode(
        CHECK_TEXTS, prompt="", batch_size=len(CHECK_TEXTS), normalize_embeddings=True, show_progress_bar=False
    )
    least_cosine = (ours * theirs).sum(axis=1).min()
    if not least_cosine >= LEAST_COSINE:  # `<` would accept NaN
        raise ValueError(f"its vectors are not those of sentence-transformers (cosine {least_cosine:.4f})")
