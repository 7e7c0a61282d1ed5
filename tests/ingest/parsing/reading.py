"""A file read by its parser, in this process."""

from io import BytesIO
from pathlib import Path
from typing import Any

from ingest.parsing.parsed import Parsed
from ingest.parsing.read import read_document


def read(folder: Path, made: Any, name: str = "file.bin") -> Parsed:
    """Write bytes, or what a library saves, into a file and return the document in it."""
    (file := folder / name).write_bytes(saved(made))
    return read_document(file)


def saved(made: Any) -> bytes:
    if not isinstance(made, bytes):
        made.save(data := BytesIO())
        return data.getvalue()
    return made


def text_of(parsed: Parsed) -> str:
    return "\n".join(page.markdown for page in parsed.pages)


def text_in(folder: Path, made: Any) -> str:
    return text_of(read(folder, made))
