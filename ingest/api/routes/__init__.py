"""The routes of the documents API, one module per group."""

from ingest.api.routes import documents, jobs, me, metadata, probes, review, search, upload, versions

ROUTERS = tuple(routes.router for routes in (upload, documents, metadata, review, versions, jobs, search, me, probes))

__all__ = ["ROUTERS"]
