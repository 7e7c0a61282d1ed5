"""Probes and metrics: liveness has no condition; readiness needs the index and SQL, and ends when the drain begins.

An empty index is not ready if SQL has passages that customers could read: the index has lost them. The response also
lists parts without which answers only degrade: Redis, the models, the embedder, and whether the calibration fits the
served models. If an embedder's endpoint counted, its failure would take all replicas out of service.
"""

from collections.abc import Awaitable, Callable

import anyio
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from chatbot.api.dependencies import TheModels, ThePings, TheServices
from chatbot.calibration import CalibrationMisfit
from chatbot.errors import ChatError
from knowledge.index import IndexUnavailable
from knowledge.index_state import IndexEmpty
from knowledge.storage import UNAVAILABLE

router = APIRouter(tags=["probes"])

_DEADLINE_SECONDS = 2.0


@router.get("/livez")
async def livez() -> dict[str, str]:
    """Show that the event loop runs."""
    return {"status": "alive"}


@router.get("/readyz", response_model=None)
async def readyz(request: Request, pings: ThePings, models: TheModels) -> JSONResponse:
    """Return whether this replica can answer questions (it needs the index and SQL), and the state of each part."""
    if request.app.state.draining:
        return JSONResponse({"status": "draining"}, status_code=503)
    parts = dict.fromkeys(pings, "unavailable")

    async def check(name: str, ping: Callable[[], Awaitable[None]]) -> None:
        parts[name] = await _state(ping)

    async with anyio.create_task_group() as tasks:
        for name, ping in pings.items():
            tasks.start_soon(check, name, ping)
    if models.missing_capabilities:
        parts["models_lack"] = ", ".join(models.missing_capabilities)
    ready = parts["index"] == parts["sql"] == "ok"
    return JSONResponse({"status": "ready" if ready else "not ready", **parts}, status_code=200 if ready else 503)


async def _state(ping: Callable[[], Awaitable[None]]) -> str:
    try:
        with anyio.fail_after(_DEADLINE_SECONDS):
            await ping()
    except (ChatError, IndexUnavailable, TimeoutError, *UNAVAILABLE):
        return "unavailable"
    except CalibrationMisfit:
        return "does not fit"
    except IndexEmpty:
        return "empty"
    return "ok"


@router.get("/metrics")
async def metrics(services: TheServices) -> Response:
    """Return the metrics in Prometheus's text format."""
    instruments, admission = services.metrics, services.admission
    instruments.active.set(services.answers.writers.active)
    instruments.deferred.set(services.deferred.waiting)
    instruments.slots.set(admission.slots)
    instruments.busy.set(admission.busy)
    instruments.prefill.set(admission.prefill)
    for priority, waiting in admission.waiting_by_priority.items():
        instruments.queued.labels(str(priority)).set(waiting)
    return Response(generate_latest(instruments.registry), media_type=CONTENT_TYPE_LATEST)
