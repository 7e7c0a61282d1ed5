"""Vectors by sentence-transformers on torch: for CUDA. Imported only where such a device is set, since the import takes
seconds and half a gigabyte."""

from pathlib import Path

import torch
import transformers
from sentence_transformers import SentenceTransformer

from knowledge.embedding.encoder import DType, Encode, LoadEncode, Vectors


def torch_encoder(folder: Path, dtype: DType, *, device: str, threads: int, batch: int) -> LoadEncode:
    """Return a loader of a model on `device`, one for each thread; `batch` texts at a time.

    Raises, by the loader:
        OSError, ValueError, RuntimeError, ...: the model cannot be read.
    """

    def load() -> Encode:
        torch.set_num_threads(threads)  # of the calling thread
        transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # publishes no types
        model = SentenceTransformer(
            str(folder), device=device, local_files_only=True, model_kwargs={"dtype": getattr(torch, dtype)}
        )

        def encode(texts: list[str]) -> Vectors:
            encoded = model.encode(
                texts,
                prompt="",  # the prefix stands in the texts
                batch_size=batch,
                convert_to_tensor=True,
                normalize_embeddings=True,
                show_progress_bar=False,
            )
            vectors: Vectors = encoded.float().tolist()
            return vectors

        return encode

    return load
