"""The addresses of the documents API, a module each."""

from ingest.api.routes import dates, documents, jobs, me, probes, review, search, upload, versions

ROUTERS = tuple(routes.router for routes in (upload, documents, dates, review, versions, jobs, search, me, probes))

__all__ = ["ROUTERS"]
