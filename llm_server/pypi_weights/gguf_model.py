"""Converts a GGUF file to a folder that vLLM serves: bfloat16, or 8-bit integers in the compressed-tensors format.

Tensors are converted block by block from the mapped file, on several threads, without building a model or writing an
intermediate copy. The weights of linear layers are symmetric, rounded to nearest, with one scale per row; vLLM
quantises activations per token at run time. Embeddings (which are also the output layer) stay bfloat16.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from llm_server.bpe import QWEN_SPLIT, SMOLLM_SPLIT, AddedToken, Bpe
from llm_server.pypi_weights.gguf_file import GgufFile, GgufTensor, open_gguf
from llm_server.pypi_weights.tensors import Arrays, Floats, TensorEntry, tensor_file, to_bf16, to_int8

Target = Literal["int8", "bf16"]
ROWS = 64
"""The rows of a block that fits into a core's cache: twice as fast as whole tensors."""
NORMAL, CONTROL, USER = 1, 3, 4

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
ARCHITECTURES = {"qwen2": "Qwen2ForCausalLM", "llama": "LlamaForCausalLM"}
SPLITS = {"qwen2": (QWEN_SPLIT, True), "smollm": (SMOLLM_SPLIT, False)}


@dataclass(frozen=True, slots=True)
class SourceTensor:
    """A tensor of the file with transformers' name and row order."""

    name: str
    tensor: GgufTensor
    order: NDArray[np.intp] | None

    @property
    def shape(self) -> tuple[int, ...]:
        """(out, in), or (out,)."""
        return self.tensor.shape

    @property
    def is_layer_weight(self) -> bool:
        """Whether this is a layer's weight matrix, which INT8 rounds, not an embedding, norm or bias."""
        return len(self.shape) == 2 and ".layers." in self.name

    def blocks(self) -> Iterator[tuple[slice, Floats]]:
        """Yield the rows block by block."""
        rows = self.shape[0]
        step = ROWS if len(self.shape) == 2 else rows
        for start in range(0, rows, step):
            block = slice(start, min(start + step, rows))
            # A vector's raw rows are its quantised blocks, so read it as a whole.
            selected = block if len(self.shape) == 2 else slice(None)
            yield block, self.tensor.read(selected if self.order is None else self.order[selected])


def unpack_gguf(
    path: Path, folder: Path, *, target: Target, threads: int = 2, report: Callable[[float], None] = lambda _: None
) -> None:
    """Write weights, configuration and tokenizer into an existing `folder`; `report` receives progress from 0 to 1."""
    file = open_gguf(path)
    metadata = file.metadata
    sources = list(_sources(file))
    _write_weights(folder / "model.safetensors", sources, target=target, threads=threads, report=report)
    _write_json(folder / "config.json", _config(metadata, sources, target))
    end_tokens = [metadata["tokenizer.ggml.eos_token_id"], metadata["tokenizer.ggml.padding_token_id"]]
    # No sampling defaults: vLLM would apply them to requests without sampling parameters.
    _write_json(folder / "generation_config.json", {"eos_token_id": sorted(set(end_tokens), reverse=True)})
    tokenizer(metadata).write(folder)


def _sources(file: GgufFile) -> Iterator[SourceTensor]:
    tensors = dict(file.tensors)
    # The pinned models tie input and output embeddings; if a file has both, the output's precision is higher.
    embeddings = tensors.pop("output.weight", None) or tensors["token_embd.weight"]
    del tensors["token_embd.weight"]
    yield SourceTensor("model.embed_tokens.weight", embeddings, None)
    yield SourceTensor("model.norm.weight", tensors.pop("output_norm.weight"), None)
    tensors.pop("rope_freqs.weight", None)
    for name, tensor in tensors.items():
        _, layer, part, kind = name.split(".")
        order = _row_order(part, tensor, file.metadata)
        yield SourceTensor(f"model.layers.{layer}.{LAYER_NAMES[part]}.{kind}", tensor, order)


def _row_order(part: str, tensor: GgufTensor, metadata: Mapping[str, Any]) -> NDArray[np.intp] | None:
    """Return the rows in transformers' order, because llama.cpp interleaves the rotary halves of Llama's Q and K."""
    if metadata["general.architecture"] != "llama" or part not in {"attn_q", "attn_k"}:
        return None
    heads = metadata[f"llama.attention.head_count{'' if part == 'attn_q' else '_kv'}"]
    rows = tensor.shape[0]
    return np.arange(rows).reshape(heads, rows // heads // 2, 2).swapaxes(1, 2).reshape(rows)


def _write_weights(
    path: Path, sources: list[SourceTensor], *, target: Target, threads: int, report: Callable[[float], None]
) -> None:
    entries: list[TensorEntry] = []
    for source in sources:
        is_rounded = target == "int8" and source.is_layer_weight
        entries.append(TensorEntry(source.name, "I8" if is_rounded else "BF16", source.shape))
        if is_rounded:
            entries.append(TensorEntry(f"{source.name}_scale", "F32", (source.shape[0], 1)))
    total = sum(entry.bytes for entry in entries)
    written = 0
    with tensor_file(path, entries) as arrays, ThreadPoolExecutor(threads) as pool:
        for size in pool.map(lambda source: _write_tensor(source, arrays), sources):
            written += size
            report(written / total)


def _write_tensor(source: SourceTensor, arrays: Arrays) -> int:
    """Write a tensor, with scales if it is rounded; return the bytes written."""
    out = arrays[source.name]
    scales = arrays.get(f"{source.name}_scale")
    for rows, values in source.blocks():
        if scales is None:
            out[rows] = to_bf16(values)
        else:
            out[rows], scales[rows] = to_int8(values)
    return out.nbytes + (0 if scales is None else scales.nbytes)


def _config(metadata: Mapping[str, Any], sources: list[SourceTensor], target: Target) -> dict[str, object]:
    architecture = metadata["general.architecture"]
    own = {name.removeprefix(f"{architecture}."): value for name, value in metadata.items()}
    theta = _shortest(own["rope.freq_base"])
    config: dict[str, object] = {
        "architectures": [ARCHITECTURES[architecture]],
        "model_type": architecture,
        "hidden_size": own["embedding_length"],
        "intermediate_size": own["feed_forward_length"],
        "num_hidden_layers": own["block_count"],
        "num_attention_heads": own["attention.head_count"],
        "num_key_value_heads": own["attention.head_count_kv"],
        "max_position_embeddings": own["context_length"],
        "rms_norm_eps": _shortest(own["attention.layer_norm_rms_epsilon"]),
        "rope_theta": theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": theta},
        "hidden_act": "silu",
        "vocab_size": sources[0].shape[0],
        "tie_word_embeddings": True,
        "bos_token_id": own["tokenizer.ggml.bos_token_id"],
        "eos_token_id": own["tokenizer.ggml.eos_token_id"],
        "dtype": "bfloat16",
        # The release whose layout this is; without a version, transformers warns of a broken Mistral tokenizer.
        "transformers_version": "4.57.0",
    }
    return config | ({"quantization_config": _quantization()} if target == "int8" else {})


def _shortest(value: float) -> float:
    """Return a float32 as its shortest decimal, e.g. 1e-06 instead of 9.99999997e-07."""
    return float(str(np.float32(value)))


def _quantization() -> dict[str, object]:
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


def tokenizer(metadata: Mapping[str, Any]) -> Bpe:
    """Return the file's tokenizer, without the placeholder tokens that pad the vocabulary."""
    tokens = metadata["tokenizer.ggml.tokens"]
    kinds = metadata["tokenizer.ggml.token_type"]
    split, nfc = SPLITS[metadata["tokenizer.ggml.pre"]]
    added = [
        AddedToken(n, token, special=kind == CONTROL)
        for n, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
        if kind in {CONTROL, USER}
    ]
    plain = [n for n, kind in enumerate(kinds) if kind == NORMAL]
    # `tokenizers` keeps the ids of added tokens among the normal ones only if they are in the vocabulary.
    inside = [token.id for token in added if token.id < plain[-1]]
    return Bpe(
        vocabulary={tokens[n]: n for n in sorted([*plain, *inside])},
        merges=[(left, right) for left, right in map(str.split, metadata["tokenizer.ggml.merges"])],
        added=added,
        split=split,
        nfc=nfc,
        chat_template=metadata["tokenizer.chat_template"],
        eos=tokens[metadata["tokenizer.ggml.eos_token_id"]],
        pad=tokens[metadata["tokenizer.ggml.padding_token_id"]],
        max_length=metadata[f"{metadata['general.architecture']}.context_length"],
    )


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2), encoding="utf-8")
