"""Many documents at once: loading from a shell, through the API, or over a Ray cluster."""

from ingest.bulk import remote
from ingest.bulk.load import BatchStopped, LoadOrder, LoadOutcome, Show, approve_all, load
from ingest.bulk.manifest import ManifestError, Offering, gather
from ingest.bulk.progress import print_summary, showing
from ingest.bulk.sources import Source, open_source

__all__ = [
    "BatchStopped",
    "LoadOrder",
    "LoadOutcome",
    "ManifestError",
    "Offering",
    "Show",
    "Source",
    "approve_all",
    "gather",
    "load",
    "open_source",
    "print_summary",
    "remote",
    "showing",
]
