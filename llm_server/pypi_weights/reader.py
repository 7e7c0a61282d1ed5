"""Reads the values of a mapped file one after the other."""

import struct
from typing import Any


class Reader:
    """Reads from the offset `at` on."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self.at = 0

    def take(self, layout: str) -> tuple[Any, ...]:
        """Return the values of a layout of `struct`."""
        values = struct.unpack_from(layout, self._data, self.at)
        self.at += struct.calcsize(layout)
        return values

    def bytes(self, count: int) -> memoryview:
        """Return so many bytes."""
        content = self._data[self.at : self.at + count]
        self.at += count
        return content
