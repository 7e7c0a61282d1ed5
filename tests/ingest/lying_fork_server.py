"""Stands in for the fork server that reads files, as if it were itself taken over.

A file that begins with "raw" is answered with the bytes after that word, the request's number in place of NUMBER; every
other file with its name. Imports little: it is started often.
"""

import json
import sys
from pathlib import Path

PROGRAM = (sys.executable, "-m", "tests.ingest.lying_fork_server")


def answer_of(number: int, text: str) -> bytes:
    """Return a frame that says that a file holds this text."""
    parsed = {"format": "text", "title": text, "pages": [{"number": None, "markdown": text}]}
    return framed(number, {"type": "text", "parsed": parsed})


def framed(number: int, message: object) -> bytes:
    """Return a message as it is sent."""
    body = json.dumps(message).encode()
    return b"%08x %08x\n" % (number, len(body)) + body


def serve() -> None:
    """Answer requests until stdin ends, with the restrictions that the command line names."""
    sys.stdout.buffer.write(framed(0, {"type": "restrictions", "in_force": sys.argv[1:]}))
    sys.stdout.buffer.flush()
    for line in sys.stdin.buffer:
        request = json.loads(line)
        path, number = Path(request["path"]), request["number"]
        act, _, raw = path.read_bytes().partition(b" ")
        answer = raw.replace(b"NUMBER", b"%x" % number) if act == b"raw" else answer_of(number, path.name)
        sys.stdout.buffer.write(answer)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    serve()
