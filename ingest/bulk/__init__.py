"""Many documents at once: loading from a shell, through the API, or over a Ray cluster."""

from ingest.bulk import remote
from ingest.bulk.load import BatchStopped, LoadOrder, LoadOutcome, ProgressDisplay, approve_all, load
from ingest.bulk.manifest import ManifestError, SourceFile, find_files
from ingest.bulk.progress import open_display, print_summary
from ingest.bulk.sources import Source, open_source

__all__ = [
    "BatchStopped",
    "LoadOrder",
    "LoadOutcome",
    "ManifestError",
    "ProgressDisplay",
    "Source",
    "SourceFile",
    "approve_all",
    "find_files",
    "load",
    "open_display",
    "open_source",
    "print_summary",
    "remote",
]
