"""The most memory that a process and its descendants held at once, sampled while they run (Linux)."""

import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

SAMPLED_EVERY = 0.005


class Peak:
    """The highest sum so far, in bytes: each process's own peak, as long as it lives."""

    def __init__(self, root: int) -> None:
        self.bytes = 0
        self._root = root
        self._over = Event()

    def watch(self) -> None:
        while not self._over.wait(SAMPLED_EVERY):
            held = sum(map(_peak_of, _family(self._root)))
            self.bytes = max(self.bytes, held)

    def stop(self) -> None:
        self._over.set()


@contextmanager
def watched(root: int) -> Generator[Peak]:
    """Sample a process and its descendants until the block ends."""
    peak = Peak(root)
    thread = Thread(target=peak.watch, daemon=True)
    thread.start()
    try:
        yield peak
        time.sleep(2 * SAMPLED_EVERY)
    finally:
        peak.stop()
        thread.join()


def _family(root: int) -> list[int]:
    """Return a process and all that descend from it."""
    family = [root]
    for one in family:  # grows while it is walked
        with suppress(OSError):
            family += map(int, Path(f"/proc/{one}/task/{one}/children").read_text().split())
    return family


def _peak_of(process: int) -> int:
    with suppress(OSError, IndexError, ValueError):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0
