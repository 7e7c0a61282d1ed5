"""Probes and metrics: liveness depends on nothing, readiness on the catalogue and the index.

A process is not ready if the index has no passages although the catalogue has visible ones (the index was lost), or if
another embedder filled the live collection (restart the process with that embedder). An unavailable embedder is
reported and does not affect readiness: documents are received, and their jobs wait.
"""

from collections.abc import Awaitable, Callable
from functools import partial

import anyio
from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from ingest.api.dependencies import TheServices
from ingest.errors import IngestError
from ingest.services import Services
from knowledge.index import EmbedderMismatch, Index
from knowledge.index import IndexUnavailable as PassageIndexUnavailable
from knowledge.index_state import IndexEmpty, require_passages

router = APIRouter(tags=["probes"])

_DEADLINE_SECONDS = 2.0


@router.get("/livez")
async def livez() -> dict[str, str]:
    """Report that the event loop is running."""
    return {"status": "alive"}


@router.get("/readyz", response_model=None)
async def readyz(services: TheServices) -> JSONResponse:
    """Report whether this process can receive documents, and the state of each dependency."""
    pings: dict[str, Callable[[], Awaitable[None]]] = {
        "catalogue": services.catalogue.ping,
        "index": partial(_ping_index, services),
        "embedder": partial(_ping_embedder, services.index),
    }
    parts = {name: await _state(ping) for name, ping in pings.items()}
    is_ready = parts["catalogue"] == parts["index"] == "ok" and parts["embedder"] != "former"
    return JSONResponse({"status": "ready" if is_ready else "not ready", **parts}, status_code=200 if is_ready else 503)


async def _ping_index(services: Services) -> None:
    await services.index.ping()
    await require_passages(services.index, await services.catalogue.index_state(), now=services.now())


async def _ping_embedder(index: Index) -> None:
    await index.require_current()
    await index.ping_embedder()


async def _state(ping: Callable[[], Awaitable[None]]) -> str:
    """Return "ok", "unavailable", "empty" (the index was lost) or "former" (another embedder filled the index)."""
    try:
        with anyio.fail_after(_DEADLINE_SECONDS):
            await ping()
    except (IngestError, PassageIndexUnavailable, TimeoutError):
        return "unavailable"
    except EmbedderMismatch:
        return "former"
    except IndexEmpty:
        return "empty"
    return "ok"


@router.get("/metrics")
async def metrics(services: TheServices) -> Response:
    """Return the metrics in Prometheus' text format."""
    backlog = await services.job_claims.backlog()
    services.metrics.jobs.set(backlog.waiting)
    services.metrics.dead_jobs.set(backlog.dead)
    services.metrics.oldest_job.set(services.now() - backlog.oldest_at if backlog.oldest_at is not None else 0)
    return Response(generate_latest(services.metrics.registry), media_type=CONTENT_TYPE_LATEST)
