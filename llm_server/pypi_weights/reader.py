"""Reads the values of a mapped file sequentially."""

import struct
from typing import Any


class Reader:
    """Reads values from the offset `at`, and advances it."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self.at = 0

    def take(self, layout: str) -> tuple[Any, ...]:
        """Unpack values in a `struct` format."""
        values = struct.unpack_from(layout, self._data, self.at)
        self.at += struct.calcsize(layout)
        return values

    def bytes(self, count: int) -> memoryview:
        """Return `count` bytes."""
        content = self._data[self.at : self.at + count]
        self.at += count
        return content
