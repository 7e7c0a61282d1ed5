"""Stands in for the process that reads files: its forks do what a file's first word says before they read it."""

import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ingest.parsing import Outcome, ParseRequest, read_as_asked, serve
from tests.ingest.lying_template import answer_of

MOST_FILES = 64  # that a process may have open here


def read_after_the_act(asked: ParseRequest, page_begun: Callable[[], None]) -> Outcome:
    """Do what the file's first word says, then read it."""
    act = Path(asked.path).read_bytes().split()[:1]
    if act == [b"forge"]:
        to_everything_inherited(answer_of(asked.number, "forged") + answer_of(asked.number + 1, "forged"))
    if act == [b"garble"]:
        to_everything_inherited(b"\xff" * 100)
    if act == [b"listen"]:
        sys.stdin.buffer.readline()
    while act == [b"spin"]:
        pass
    if act == [b"long"]:
        gate = Path(Path(asked.path).read_bytes().split()[1].decode())
        while not gate.exists():
            page_begun()
            time.sleep(0.005)
    return read_as_asked(asked, page_begun)


def to_everything_inherited(data: bytes) -> None:
    """Write to every open file but the log."""
    log = os.fstat(sys.stderr.fileno())
    for file in range(MOST_FILES):
        with suppress(OSError):
            if not os.path.samestat(os.fstat(file), log):
                os.write(file, data)


if __name__ == "__main__":
    serve(read_after_the_act)
