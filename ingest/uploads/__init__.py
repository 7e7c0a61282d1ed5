"""Uploads: the original bytes in a blob store (folder or S3), and the first pipeline step, which fills it."""

from ingest.uploads.blobs import Blobs, BlobSettings, open_blobs, storage_errors
from ingest.uploads.receive import MetadataFields, Uploads

__all__ = ["BlobSettings", "Blobs", "MetadataFields", "Uploads", "open_blobs", "storage_errors"]
