"""Unpacked weights equal the packed ones within half a step of INT8, and their tokenizer encodes alike."""

import json
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from llm_server.pypi_weights.gguf_model import unpack_gguf
from llm_server.scripted import byte_tokenizer
from tests.llm_server.pypi_weights.tiny_gguf import write_gguf

Floats = NDArray[np.float32]


def stored(folder: Path) -> dict[str, NDArray[np.generic]]:
    """Read the safetensors file by its own rules, bfloat16 as bits."""
    raw = (folder / "model.safetensors").read_bytes()
    (size,) = struct.unpack_from("<Q", raw)
    header = json.loads(raw[8 : 8 + size])
    kinds = {"I8": np.int8, "BF16": np.uint16, "F32": np.float32}
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__":
            start, stop = (8 + size + at for at in entry["data_offsets"])
            tensors[name] = np.frombuffer(raw[start:stop], dtype=kinds[entry["dtype"]]).reshape(entry["shape"])
    return tensors


def test_int8_weights_are_within_half_a_step_of_the_original(tmp_path: Path) -> None:
    original = write_gguf(tmp_path / "tiny.gguf")
    unpack_gguf(tmp_path / "tiny.gguf", tmp_path)
    tensors = stored(tmp_path)
    for ours, theirs in {"self_attn.q_proj": "attn_q", "mlp.down_proj": "ffn_down", "mlp.up_proj": "ffn_up"}.items():
        weight = tensors[f"model.layers.1.{ours}.weight"]
        scale = tensors[f"model.layers.1.{ours}.weight_scale"].astype(np.float32)
        assert weight.dtype == np.int8
        assert scale.shape == (weight.shape[0], 1)
        error = np.abs(weight.astype(np.float32) * scale - original[f"blk.1.{theirs}.weight"])
        assert (error <= scale * 0.5001).all()
        assert error.mean() < scale.mean() * 0.27
    assert tensors["model.layers.0.self_attn.q_proj.bias"].dtype == np.uint16
    assert tensors["model.embed_tokens.weight"].dtype == np.uint16, (
        "embeddings, which are the output too, stay bfloat16"
    )


def test_the_tokenizer_of_the_file_is_written_as_it_was(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf")
    unpack_gguf(tmp_path / "tiny.gguf", tmp_path)
    ours = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    theirs = Tokenizer.from_str(byte_tokenizer().to_json())
    text = "<|im_start|>user\n정기예금 금리 3.10%? é 漢字 😀\n\n  The rate<|im_end|>"
    assert ours.encode(text).ids == theirs.encode(text).ids
    assert "<|im_start|>" in json.loads((tmp_path / "tokenizer_config.json").read_text())["chat_template"]
