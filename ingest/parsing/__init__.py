"""Turn a file into passages: one module per format, run in a sandboxed process, and the chunker."""

from ingest.parsing.chunking import (
    ChunkedDocument,
    Chunking,
    ChunkSettings,
    WeightsMissing,
    open_tokenizer,
    require_tokenizer,
)
from ingest.parsing.parsed import Format, LeftOut, OnPage, Reason, Unreadable
from ingest.parsing.preview import LONGEST_SIDE, PagePreview
from ingest.parsing.process import (
    Answer,
    Parser,
    ParseRequest,
    ParserSettings,
    ParserUnavailable,
    open_parser,
    read_as_requested,
    serve,
)
from ingest.parsing.readers import Readers, open_readers
from ingest.parsing.sandbox import Restriction

__all__ = [
    "LONGEST_SIDE",
    "Answer",
    "ChunkSettings",
    "ChunkedDocument",
    "Chunking",
    "Format",
    "LeftOut",
    "OnPage",
    "PagePreview",
    "ParseRequest",
    "Parser",
    "ParserSettings",
    "ParserUnavailable",
    "Readers",
    "Reason",
    "Restriction",
    "Unreadable",
    "WeightsMissing",
    "open_parser",
    "open_readers",
    "open_tokenizer",
    "read_as_requested",
    "require_tokenizer",
    "serve",
]
