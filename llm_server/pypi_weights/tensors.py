"""Writes a safetensors file in place, block by block, without a second copy of the weights in memory."""

import json
import mmap
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Kind = Literal["I8", "BF16", "F32"]
# numpy has no bfloat16, so its bits are stored as uint16.
_TYPES: dict[Kind, np.dtype[Any]] = {
    "I8": np.dtype(np.int8),
    "BF16": np.dtype(np.uint16),
    "F32": np.dtype(np.float32),
}


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """A tensor's name, type and shape."""

    name: str
    kind: Kind
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """The tensor's size in bytes."""
        return prod(self.shape) * _TYPES[self.kind].itemsize


# Each array has its entry's type.
Arrays = dict[str, NDArray[Any]]


@contextmanager
def tensor_file(path: Path, entries: Sequence[TensorEntry]) -> Iterator[Arrays]:
    """Allocate a file for `entries` and yield their arrays to fill; flush it to disk when the block ends."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    data_size = 0
    for entry in entries:
        offsets = [data_size, data_size + entry.bytes]
        header[entry.name] = {"dtype": entry.kind, "shape": entry.shape, "data_offsets": offsets}
        data_size += entry.bytes
    encoded_header = json.dumps(header).encode()
    encoded_header += b" " * (-len(encoded_header) % 64)  # aligns the data
    position = 8 + len(encoded_header)
    file_size = position + data_size
    with path.open("w+b") as file:
        file.write(len(encoded_header).to_bytes(8, "little") + encoded_header)
        # Allocate now, so that a full disk fails with ENOSPC here, not with a bus error in the mapping.
        os.posix_fallocate(file.fileno(), 0, file_size)
        mapped = mmap.mmap(file.fileno(), file_size)
        arrays: Arrays = {}
        for entry in entries:
            flat = np.frombuffer(mapped, dtype=_TYPES[entry.kind], count=prod(entry.shape), offset=position)
            arrays[entry.name] = flat.reshape(entry.shape)
            position += entry.bytes
        yield arrays
        mapped.flush()


def to_bf16(values: Floats) -> NDArray[np.uint16]:
    """Round `values` to bfloat16 (nearest even), and return the bits."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    last_kept_bit = (bits >> 16) & 1  # decides a tie
    rounded: NDArray[np.uint16] = ((bits + 0x7FFF + last_kept_bit) >> 16).astype(np.uint16)
    return rounded


def to_int8(values: Floats) -> tuple[NDArray[np.int8], Floats]:
    """Quantise each row to 8 bits (symmetric, round to nearest); return the rows and their scales."""
    largest = np.maximum(values.max(axis=1), -values.min(axis=1))
    largest = np.maximum(largest, 1e-12)  # a row of zeros must not divide by zero
    scales = largest[:, None] / np.float32(127)
    return np.rint(values / scales).astype(np.int8), scales
