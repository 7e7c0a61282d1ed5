"""The peak memory of a process and its descendants, sampled while they run (Linux)."""

import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

SAMPLE_SECONDS = 0.005


class PeakMemory:
    """The highest sum so far, in bytes, of the own peaks of the processes that run at one moment."""

    def __init__(self, root: int) -> None:
        self.bytes = 0
        self._root = root
        self._stopped = Event()

    def watch(self) -> None:
        while not self._stopped.wait(SAMPLE_SECONDS):
            self.bytes = max(self.bytes, sum(map(_peak_bytes, _process_tree(self._root))))

    def stop(self) -> None:
        self._stopped.set()


@contextmanager
def watch_peak_memory(root: int) -> Generator[PeakMemory]:
    """Sample a process and its descendants until the block ends."""
    peak = PeakMemory(root)
    thread = Thread(target=peak.watch, daemon=True)
    thread.start()
    try:
        yield peak
        time.sleep(2 * SAMPLE_SECONDS)
    finally:
        peak.stop()
        thread.join()


def _process_tree(root: int) -> list[int]:
    """Return the ids of a process and its descendants."""
    tree = [root]
    for pid in tree:  # grows while it is walked
        with suppress(OSError):
            tree += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    return tree


def _peak_bytes(pid: int) -> int:
    """Return the peak resident set size of a process (VmHWM in proc(5)); 0 for one that has ended."""
    with suppress(OSError, IndexError, ValueError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0
