"""Shifts a process's clock with libfaketime by the offset in a file; monotonic time is unchanged."""

from pathlib import Path

LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
"""None if libfaketime is not installed (apt-get install libfaketime)."""


def with_clock(file: Path) -> dict[str, str]:
    """Return the environment of a process whose clock follows the file; it must be executed, not forked."""
    assert LIBRARY is not None
    set_clock(file, 0)
    return {
        "LD_PRELOAD": str(LIBRARY),
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


def set_clock(file: Path, seconds: float) -> None:
    """Set the clock's offset, which takes effect within a second."""
    file.write_text(f"{seconds:+.0f}\n", encoding="ascii")
