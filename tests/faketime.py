"""A clock that is off: libfaketime under a process, by what a file says at the moment; monotonic time stays true."""

from pathlib import Path

LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
"""None where libfaketime is not installed (apt-get install libfaketime)."""


def with_clock(file: Path) -> dict[str, str]:
    """Return the environment of a process that has to be started by its own command: its clock follows the file."""
    assert LIBRARY is not None
    set_clock(file, 0)
    return {
        "LD_PRELOAD": str(LIBRARY),
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


def set_clock(file: Path, seconds: float) -> None:
    """Have the clock be so far off, within a second."""
    file.write_text(f"{seconds:+.0f}\n", encoding="ascii")
