"""Uploads: the original bytes in a blob store (folder or S3), and the first pipeline step, which fills it."""

from ingest.uploads.blobs import Blobs, BlobSettings, open_blobs
from ingest.uploads.receive import UploadRequest, Uploads

__all__ = ["BlobSettings", "Blobs", "UploadRequest", "Uploads", "open_blobs"]
