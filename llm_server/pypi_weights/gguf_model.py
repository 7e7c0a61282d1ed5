"""Turns a GGUF file into a folder that vLLM serves: bfloat16, or 8-bit integers in the compressed-tensors format.

Tensor by tensor and block by block straight from the mapped file, on as many threads as asked for; no model is built
and no intermediate copy is written. Linear layers get symmetric weights rounded to nearest with one scale a row, and
activations that vLLM quantises per token while it runs; embeddings (which are also the output layer) stay bfloat16.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from llm_server.bpe import QWEN_SPLIT, SMOLLM_SPLIT, AddedToken, Bpe
from llm_server.pypi_weights.gguf_file import GgufFile, GgufTensor, Value, open_gguf
from llm_server.pypi_weights.tensors import Arrays, Floats, TensorEntry, tensor_file, to_bf16, to_int8

Target = Literal["int8", "bf16"]
ROWS = 64  # a block of so many rows stays in a core's cache: twice as fast as whole tensors
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


class UnknownGguf(Exception):
    """The file is of an architecture or has a tensor that is not known here."""


class Facts:
    """The file's metadata, each fact asked for by the type it should have."""

    def __init__(self, facts: Mapping[str, Value]) -> None:
        self._facts = facts
        self.architecture = self.text("general.architecture")
        if self.architecture not in ARCHITECTURES:
            raise UnknownGguf(f"The GGUF file holds a {self.architecture} model, which is not known here.")

    def text(self, name: str) -> str:
        """Return a string."""
        return str(self._fact(name))

    def number(self, name: str) -> int:
        """Return an integer."""
        value = self._fact(name)
        if not isinstance(value, int):
            raise UnknownGguf(f"The GGUF file's {name} is no whole number.")
        return value

    def real(self, name: str) -> float:
        """Return a float, as its shortest decimal (1e-06, not 9.99999997e-07)."""
        value = self._fact(name)
        if not isinstance(value, int | float):
            raise UnknownGguf(f"The GGUF file's {name} is no number.")
        return float(str(np.float32(value)))

    def items(self, name: str) -> list[int] | list[float] | list[str]:
        """Return a list."""
        value = self._fact(name)
        if not isinstance(value, list):
            raise UnknownGguf(f"The GGUF file's {name} is no list.")
        return value

    def own(self, name: str) -> str:
        """Return the full name of a fact about this architecture."""
        return f"{self.architecture}.{name}"

    def _fact(self, name: str) -> Value:
        if name not in self._facts:
            raise UnknownGguf(f"The GGUF file does not say its {name}.")
        return self._facts[name]


@dataclass(frozen=True, slots=True)
class Source:
    """A tensor of the file under the name that transformers gives it, in the row order that it expects."""

    name: str
    tensor: GgufTensor
    order: NDArray[np.intp] | None

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape as (out, in), or (out,)."""
        return self.tensor.shape

    @property
    def matrix(self) -> bool:
        """Tell a layer's weight, which INT8 rounds, from embeddings, norms and biases."""
        return len(self.shape) == 2 and ".layers." in self.name

    def blocks(self) -> Iterator[tuple[slice, Floats]]:
        """Yield the rows block by block."""
        rows = self.shape[0]
        step = ROWS if len(self.shape) == 2 else rows
        for start in range(0, rows, step):
            part = slice(start, min(start + step, rows))
            # A vector's rows are its blocks, so it is read whole.
            wanted = part if len(self.shape) == 2 else slice(None)
            yield part, self.tensor.read(wanted if self.order is None else self.order[wanted])


def unpack_gguf(
    path: Path, folder: Path, *, target: Target, threads: int = 2, tell: Callable[[float], None] = lambda _: None
) -> None:
    """Write weights, configuration and tokenizer into `folder`, which exists; `tell` hears the share done, 0 to 1.

    Raises:
        NotAGgufFile: the file is damaged, or not a GGUF file.
        UnknownGguf: the file is not of a known architecture.
    """
    file = open_gguf(path)
    facts = Facts(file.facts)
    sources = list(_sources(file, facts))
    _write_weights(folder / "model.safetensors", sources, target=target, threads=threads, tell=tell)
    _write_json(folder / "config.json", _config(facts, sources, target))
    ends = [facts.number("tokenizer.ggml.eos_token_id"), facts.number("tokenizer.ggml.padding_token_id")]
    # No sampling defaults: vLLM would apply them to requests that name none.
    _write_json(folder / "generation_config.json", {"eos_token_id": sorted(set(ends), reverse=True)})
    tokenizer(facts).write(folder)


def _sources(file: GgufFile, facts: Facts) -> Iterator[Source]:
    tensors = dict(file.tensors)
    # The models we pin tie input and output embeddings; the file may hold both, the output's at the finer precision.
    embeddings = tensors.pop("output.weight", None) or tensors["token_embd.weight"]
    del tensors["token_embd.weight"]
    yield Source("model.embed_tokens.weight", embeddings, None)
    yield Source("model.norm.weight", tensors.pop("output_norm.weight"), None)
    tensors.pop("rope_freqs.weight", None)
    for name, tensor in tensors.items():
        _, layer, part, kind = name.split(".")
        if part not in LAYER_NAMES:
            raise UnknownGguf(f"The GGUF file holds a tensor {name}, which is not known here.")
        yield Source(f"model.layers.{layer}.{LAYER_NAMES[part]}.{kind}", tensor, _row_order(part, tensor, facts))


def _row_order(part: str, tensor: GgufTensor, facts: Facts) -> NDArray[np.intp] | None:
    """Return the order that undoes llama.cpp's: it stores the rotary halves of Llama's query and key interleaved."""
    if facts.architecture != "llama" or part not in {"attn_q", "attn_k"}:
        return None
    heads = facts.number(facts.own("attention.head_count" if part == "attn_q" else "attention.head_count_kv"))
    rows = tensor.shape[0]
    return np.arange(rows).reshape(heads, rows // heads // 2, 2).swapaxes(1, 2).reshape(rows)


def _write_weights(
    path: Path, sources: list[Source], *, target: Target, threads: int, tell: Callable[[float], None]
) -> None:
    entries: list[TensorEntry] = []
    for source in sources:
        rounded = target == "int8" and source.matrix
        entries.append(TensorEntry(source.name, "I8" if rounded else "BF16", source.shape))
        if rounded:
            entries.append(TensorEntry(f"{source.name}_scale", "F32", (source.shape[0], 1)))
    total = sum(entry.bytes for entry in entries)
    done = 0
    with tensor_file(path, entries) as arrays, ThreadPoolExecutor(threads) as pool:
        for entry in pool.map(lambda source: _write_tensor(source, arrays), sources):
            done += entry
            tell(done / total)


def _write_tensor(source: Source, arrays: Arrays) -> int:
    out = arrays[source.name]
    scales = arrays.get(f"{source.name}_scale")
    for rows, values in source.blocks():
        if scales is None:
            out[rows] = to_bf16(values)
        else:
            out[rows], scales[rows] = to_int8(values)
    return out.nbytes + (0 if scales is None else scales.nbytes)


def _config(facts: Facts, sources: list[Source], target: Target) -> dict[str, object]:
    theta = facts.real(facts.own("rope.freq_base"))
    config: dict[str, object] = {
        "architectures": [ARCHITECTURES[facts.architecture]],
        "model_type": facts.architecture,
        "hidden_size": facts.number(facts.own("embedding_length")),
        "intermediate_size": facts.number(facts.own("feed_forward_length")),
        "num_hidden_layers": facts.number(facts.own("block_count")),
        "num_attention_heads": facts.number(facts.own("attention.head_count")),
        "num_key_value_heads": facts.number(facts.own("attention.head_count_kv")),
        "max_position_embeddings": facts.number(facts.own("context_length")),
        "rms_norm_eps": facts.real(facts.own("attention.layer_norm_rms_epsilon")),
        "rope_theta": theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": theta},
        "hidden_act": "silu",
        "vocab_size": sources[0].shape[0],
        "tie_word_embeddings": True,
        "bos_token_id": facts.number("tokenizer.ggml.bos_token_id"),
        "eos_token_id": facts.number("tokenizer.ggml.eos_token_id"),
        "dtype": "bfloat16",
        # The layout of that release; a folder without a version is warned about as if it were a broken Mistral.
        "transformers_version": "4.57.0",
    }
    return config | ({"quantization_config": _quantization()} if target == "int8" else {})


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


def tokenizer(facts: Facts) -> Bpe:
    """Return the file's tokenizer; placeholders that only fill up the vocabulary are left out."""
    tokens = [str(token) for token in facts.items("tokenizer.ggml.tokens")]
    kinds = facts.items("tokenizer.ggml.token_type")
    split, nfc = SPLITS[facts.text("tokenizer.ggml.pre")]
    added = [
        AddedToken(n, token, special=kind == CONTROL)
        for n, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
        if kind in {CONTROL, USER}
    ]
    plain = [n for n, kind in enumerate(kinds) if kind == NORMAL]
    # Added tokens among the plain ones must keep their ids, which `tokenizers` only does for members of the vocabulary.
    inside = [token.id for token in added if token.id < plain[-1]]
    return Bpe(
        vocabulary={tokens[n]: n for n in sorted([*plain, *inside])},
        merges=[_pair(str(merge)) for merge in facts.items("tokenizer.ggml.merges")],
        added=added,
        split=split,
        nfc=nfc,
        chat_template=facts.text("tokenizer.chat_template"),
        eos=tokens[facts.number("tokenizer.ggml.eos_token_id")],
        pad=tokens[facts.number("tokenizer.ggml.padding_token_id")],
        max_length=facts.number(facts.own("context_length")),
    )


def _pair(merge: str) -> tuple[str, str]:
    left, _, right = merge.partition(" ")
    return left, right


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2), encoding="utf-8")
