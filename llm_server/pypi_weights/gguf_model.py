"""Converts a GGUF file of a Qwen2 model to a folder that vLLM serves: 8-bit integers in the compressed-tensors format.

Tensors are converted block by block from the mapped file, on several threads, without building a model or writing an
intermediate copy. The weights of linear layers are symmetric, rounded to nearest, with one scale per row; vLLM
quantises activations per token at run time. Embeddings (which are also the output layer) stay bfloat16.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader, ReaderTensor, dequantize

from llm_server.bpe import AddedToken, Bpe
from llm_server.pypi_weights.tensors import Arrays, TensorEntry, tensor_file, to_bf16, to_int8

ROWS = 64
"""The rows of a block that fits into a core's cache: twice as fast as whole tensors."""
NORMAL, CONTROL, USER = 1, 3, 4
"""GGUF's types of tokens."""

LAYER_NAMES = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}


def unpack_gguf(
    path: Path, folder: Path, *, threads: int = 2, report: Callable[[float], None] = lambda _: None
) -> None:
    """Write weights, configuration and tokenizer into an existing `folder`; `report` receives progress from 0 to 1."""
    file = GGUFReader(path)
    metadata = {name: field.contents() for name, field in file.fields.items()}
    sources = dict(_sources(file.tensors))
    _write_weights(folder / "model.safetensors", sources, threads=threads, report=report)
    _write_json(folder / "config.json", _config(metadata, vocabulary=_shape(sources["model.embed_tokens.weight"])[0]))
    end_tokens = [metadata["tokenizer.ggml.eos_token_id"], metadata["tokenizer.ggml.padding_token_id"]]
    # No sampling defaults: vLLM would apply them to requests without sampling parameters.
    _write_json(folder / "generation_config.json", {"eos_token_id": sorted(set(end_tokens), reverse=True)})
    read_tokenizer(metadata).write(folder)


def _sources(listed: list[ReaderTensor]) -> Iterator[tuple[str, ReaderTensor]]:
    """Yield each tensor after its name in transformers."""
    tensors = {tensor.name: tensor for tensor in listed}
    # The pinned models tie input and output embeddings; if a file has both, the output's precision is higher.
    input_embeddings = tensors.pop("token_embd.weight")
    yield "model.embed_tokens.weight", tensors.pop("output.weight", input_embeddings)
    yield "model.norm.weight", tensors.pop("output_norm.weight")
    for name, tensor in tensors.items():
        _, layer, part, kind = name.split(".")
        yield f"model.layers.{layer}.{LAYER_NAMES[part]}.{kind}", tensor


def _shape(tensor: ReaderTensor) -> tuple[int, ...]:
    """Return a tensor's shape in numpy's order: (out, in), or (out,)."""
    return tuple(reversed(tensor.shape.tolist()))


def _write_weights(
    path: Path, sources: Mapping[str, ReaderTensor], *, threads: int, report: Callable[[float], None]
) -> None:
    """Write the matrices of the layers as 8-bit integers with scales, all other tensors as bfloat16."""
    entries: list[TensorEntry] = []
    for name, tensor in sources.items():
        shape = _shape(tensor)
        if len(shape) == 2 and ".layers." in name:
            entries.append(TensorEntry(name, "I8", shape))
            entries.append(TensorEntry(f"{name}_scale", "F32", (shape[0], 1)))
        else:
            entries.append(TensorEntry(name, "BF16", shape))
    total = sum(entry.bytes for entry in entries)
    written = 0
    with tensor_file(path, entries) as arrays, ThreadPoolExecutor(threads) as pool:
        for size in pool.map(lambda name: _write_tensor(name, sources[name], arrays), sources):
            written += size
            report(written / total)


def _write_tensor(name: str, tensor: ReaderTensor, arrays: Arrays) -> int:
    """Write a tensor, with scales if it is rounded to integers; return the number of bytes written."""
    out = arrays[name]
    scales = arrays.get(f"{name}_scale")
    step = ROWS if out.ndim == 2 else len(out)
    for start in range(0, len(out), step):
        rows = slice(start, start + step)
        values = dequantize(tensor.data[rows], tensor.tensor_type).astype(np.float32, copy=False)
        if scales is None:
            out[rows] = to_bf16(values)
        else:
            out[rows], scales[rows] = to_int8(values)
    return out.nbytes + (0 if scales is None else scales.nbytes)


def _config(metadata: Mapping[str, Any], *, vocabulary: int) -> dict[str, object]:
    """Return the content of `config.json`, with the file's metadata under transformers' names."""
    fields = {name.removeprefix("qwen2."): value for name, value in metadata.items()}
    theta = _shortest(fields["rope.freq_base"])
    return {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "hidden_size": fields["embedding_length"],
        "intermediate_size": fields["feed_forward_length"],
        "num_hidden_layers": fields["block_count"],
        "num_attention_heads": fields["attention.head_count"],
        "num_key_value_heads": fields["attention.head_count_kv"],
        "max_position_embeddings": fields["context_length"],
        "rms_norm_eps": _shortest(fields["attention.layer_norm_rms_epsilon"]),
        "rope_theta": theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": theta},
        "hidden_act": "silu",
        "vocab_size": vocabulary,
        "tie_word_embeddings": True,
        "bos_token_id": fields["tokenizer.ggml.bos_token_id"],
        "eos_token_id": fields["tokenizer.ggml.eos_token_id"],
        "dtype": "bfloat16",
        # The release whose layout this is; without a version, transformers warns of a broken Mistral tokenizer.
        "transformers_version": "4.57.0",
        "quantization_config": _quantization(),
    }


def _shortest(value: float) -> float:
    """Return a float32 as its shortest decimal, e.g. 1e-06 instead of 9.99999997e-07."""
    return float(str(np.float32(value)))


def _quantization() -> dict[str, object]:
    """Return the quantisation of the written weights, as vLLM reads it from `config.json`."""
    kind = {"num_bits": 8, "type": "int", "symmetric": True}
    group = {
        "targets": ["Linear"],
        "weights": kind | {"strategy": "channel", "dynamic": False},
        "input_activations": kind | {"strategy": "token", "dynamic": True},
    }
    return {
        "quant_method": "compressed-tensors",
        "format": "int-quantized",
        "quantization_status": "compressed",
        "config_groups": {"group_0": group},
        "ignore": ["lm_head"],
    }


def read_tokenizer(metadata: Mapping[str, Any]) -> Bpe:
    """Return the file's tokenizer, without the placeholder tokens that pad the vocabulary."""
    tokens = metadata["tokenizer.ggml.tokens"]
    kinds = metadata["tokenizer.ggml.token_type"]
    added = [
        AddedToken(n, token, special=kind == CONTROL)
        for n, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
        if kind in {CONTROL, USER}
    ]
    normal_ids = [n for n, kind in enumerate(kinds) if kind == NORMAL]
    # The library `tokenizers` keeps an added token's id between those of normal tokens only if the vocabulary has it.
    ids_between = [token.id for token in added if token.id < normal_ids[-1]]
    return Bpe(
        vocabulary={tokens[n]: n for n in sorted([*normal_ids, *ids_between])},
        merges=[(left, right) for left, right in map(str.split, metadata["tokenizer.ggml.merges"])],
        added=added,
        chat_template=metadata["tokenizer.chat_template"],
        eos=tokens[metadata["tokenizer.ggml.eos_token_id"]],
        pad=tokens[metadata["tokenizer.ggml.padding_token_id"]],
        max_length=metadata["qwen2.context_length"],
    )


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2), encoding="utf-8")
