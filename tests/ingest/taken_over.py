"""Stands in for the fork server that reads files: its forks do what a file's first word says before they read it."""

import os
import sys
import time
from contextlib import suppress
from pathlib import Path

from ingest.parsing import Answer, OnPage, ParseRequest, read_as_requested, serve
from tests.ingest.lying_fork_server import answer_of

PROGRAM = (sys.executable, "-m", "tests.ingest.taken_over")
MOST_FILES = 64  # that a process may have open here


def read_after_the_act(request: ParseRequest, on_page: OnPage) -> Answer:
    """Do what the file's first word says, then read it."""
    words = Path(request.path).read_bytes().split()
    act = words[:1]
    if act == [b"forge"]:
        to_everything_inherited(answer_of(request.number, "forged") + answer_of(request.number + 1, "forged"))
    if act == [b"listen"]:
        sys.stdin.buffer.readline()
    while act == [b"spin"]:
        pass
    if act == [b"slow"]:
        begin_slow_pages(int(words[1]), float(words[2]), on_page)
    if act == [b"long"]:
        begin_pages_until(Path(words[1].decode()), on_page)
    return read_as_requested(request, on_page)


def begin_slow_pages(pages: int, seconds: float, on_page: OnPage) -> None:
    """Begin so many pages, each of which takes so many seconds."""
    for _ in range(pages):
        on_page()
        time.sleep(seconds)


def begin_pages_until(gate: Path, on_page: OnPage) -> None:
    """Begin page after page until there is a file."""
    while not gate.exists():
        on_page()
        time.sleep(0.005)


def to_everything_inherited(data: bytes) -> None:
    """Write to every open file but the log."""
    log = os.fstat(sys.stderr.fileno())
    for file in range(MOST_FILES):
        with suppress(OSError):
            if not os.path.samestat(os.fstat(file), log):
                os.write(file, data)


if __name__ == "__main__":
    serve(read_after_the_act)
