"""A file read by its parser, in this process."""

from pathlib import Path

from ingest.parsing import Parsed, read_document


def read(folder: Path, data: bytes, name: str = "file.bin") -> Parsed:
    """Write bytes into a file and return the document in it."""
    (file := folder / name).write_bytes(data)
    return read_document(file)


def text_of(parsed: Parsed) -> str:
    return "\n".join(page.markdown for page in parsed.pages)
