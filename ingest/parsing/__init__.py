"""From a file to passages: one module a format, run in a limited process, and the chunker."""

from ingest.parsing.chunking import Chunk, Chunker, ChunkSettings
from ingest.parsing.parsed import Format, Parsed, Reason, Unreadable
from ingest.parsing.preview import LONGEST_SIDE, MOST_CHARACTERS, PagePreview, show_page
from ingest.parsing.process import (
    NoParser,
    Outcome,
    Parser,
    ParseRequest,
    ParserSettings,
    open_parser,
    read_as_asked,
    serve,
)
from ingest.parsing.read import one_budget, read_document
from ingest.parsing.readers import Occupied, Readers, open_readers
from ingest.parsing.sandbox import Walled
from ingest.parsing.tokenizer import WeightsMissing, open_tokenizer

__all__ = [
    "LONGEST_SIDE",
    "MOST_CHARACTERS",
    "Chunk",
    "ChunkSettings",
    "Chunker",
    "Format",
    "NoParser",
    "Occupied",
    "Outcome",
    "PagePreview",
    "ParseRequest",
    "Parsed",
    "Parser",
    "ParserSettings",
    "Readers",
    "Reason",
    "Unreadable",
    "Walled",
    "WeightsMissing",
    "one_budget",
    "open_parser",
    "open_readers",
    "open_tokenizer",
    "read_as_asked",
    "read_document",
    "serve",
    "show_page",
]
