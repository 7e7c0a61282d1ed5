"""Bulk loading: from a shell, through the API, or with a Ray cluster."""

from ingest.bulk.load import ApiRefused, BatchStopped, Target, load
from ingest.bulk.local import LoadRequest, LocalTarget
from ingest.bulk.manifest import ManifestError, SourceFile, find_files
from ingest.bulk.progress import LoadDisplay, LoadOutcome, print_summary
from ingest.bulk.remote import open_api
from ingest.bulk.sources import LocalFiles, Source, open_source

__all__ = [
    "ApiRefused",
    "BatchStopped",
    "LoadDisplay",
    "LoadOutcome",
    "LoadRequest",
    "LocalFiles",
    "LocalTarget",
    "ManifestError",
    "Source",
    "SourceFile",
    "Target",
    "find_files",
    "load",
    "open_api",
    "open_source",
    "print_summary",
]
