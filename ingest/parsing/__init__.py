"""From a file to passages: one module a format, run in a sandboxed process, and the chunker."""

from ingest.parsing.chunking import (
    ChunkedDocument,
    Chunking,
    ChunkSettings,
    WeightsMissing,
    open_tokenizer,
    require_tokenizer,
)
from ingest.parsing.parsed import Format, LeftOut, Parsed, Reason, Unreadable
from ingest.parsing.preview import PagePreview
from ingest.parsing.process import Parser, ParserSettings, ParserUnavailable, open_parser
from ingest.parsing.read import read_document
from ingest.parsing.readers import Readers, ReadersBusy, open_readers
from ingest.parsing.sandbox import Restriction

__all__ = [
    "ChunkSettings",
    "ChunkedDocument",
    "Chunking",
    "Format",
    "LeftOut",
    "PagePreview",
    "Parsed",
    "Parser",
    "ParserSettings",
    "ParserUnavailable",
    "Readers",
    "ReadersBusy",
    "Reason",
    "Restriction",
    "Unreadable",
    "WeightsMissing",
    "open_parser",
    "open_readers",
    "open_tokenizer",
    "read_document",
    "require_tokenizer",
]
