"""Downloads a model's folder from a hub at a pinned commit, and compares its files with the hub's digests.

Only safetensors are fetched, because other weight formats can run code. A folder with `fetched.json` is complete and
not fetched again. The environment names a mirror (HF_ENDPOINT), a token (HF_TOKEN) and the proxy.
"""

from pathlib import Path

import msgspec

from knowledge.embedding import EmbeddingUnavailable, hub_folder

STAMP = "fetched.json"
FETCHED_FILES = ("*.json", "*.safetensors", "*.txt", "*.model")
OTHER_FORMATS = ("onnx/*", "openvino/*")
"""Folders that contain the model in other formats."""


def fetch_model(model: str, revision: str, weights: Path) -> Path:
    """Download a hub's model, unless it is already there; return its folder below `weights` (blocking).

    Raises:
        EmbeddingUnavailable: the download fails, or a file does not match its digest.
    """
    # Imported here, because only the llm-server image with sentence-transformers has it.
    from huggingface_hub import HfApi  # noqa: PLC0415

    folder = weights / hub_folder(model, revision)
    if (folder / STAMP).is_file():
        return folder
    hub = HfApi()
    try:
        hub.snapshot_download(
            model,
            revision=revision,
            local_dir=folder,
            allow_patterns=list(FETCHED_FILES),
            ignore_patterns=list(OTHER_FORMATS),
        )
        verified = hub.verify_repo_checksums(model, revision=revision, local_dir=folder)
    except (OSError, ValueError) as exc:
        raise EmbeddingUnavailable(f"{model} cannot be fetched from {hub.endpoint} at {revision}: {exc}") from exc
    if verified.mismatches:
        files = ", ".join(mismatch["path"] for mismatch in verified.mismatches)
        for mismatch in verified.mismatches:
            (folder / mismatch["path"]).unlink()
        raise EmbeddingUnavailable(f"{model}: {files} do not match the digests of the hub; fetch again")
    if not any(folder.glob("**/*.safetensors")):
        raise EmbeddingUnavailable(f"{model} has no safetensors file; other weights are not supported")
    (folder / STAMP).write_bytes(msgspec.json.encode({"model": model, "revision": revision}))
    return folder
