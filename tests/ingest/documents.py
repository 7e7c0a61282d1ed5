"""Documents through the pipeline, step by step: received, indexed, approved, searched for."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from datetime import date
from io import StringIO
from pathlib import Path
from typing import Any

import anyio
from httpx2 import ASGITransport, AsyncClient
from rich.console import Console

from evals.sample_bank import sample_banks
from ingest.app import create_app
from ingest.bulk import LoadDisplay, LoadOutcome, LoadRequest, LocalFiles, LocalTarget, SourceFile, load
from ingest.catalogue import Metadata, Received, Stage, Upload, Version
from ingest.job_runner import run_job
from ingest.maintenance import read_status, show_status
from ingest.parsing import Chunking
from ingest.pipeline import activate
from ingest.services import Services
from knowledge.access import Access
from knowledge.passage import Passage
from knowledge.withdrawals import Withdrawals, WithdrawalsSettings
from tests.ingest import samples

LOAD = LoadRequest(tenant="hanbit", uploaded_by="kim", approver="lee")
REQUEST = Upload(tenant="hanbit", file_name="정기예금.md", metadata=Metadata(), uploaded_by="kim")
TERMS = replace(REQUEST, document_id="term-deposit")


async def stream(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def receive(services: Services, data: bytes = samples.MARKDOWN.encode(), request: Upload = REQUEST) -> Received:
    return await services.uploads.receive(request, stream(data))


async def do_job(services: Services, received: Received) -> Version:
    """Do the job of an upload that was received; return its version."""
    job = await services.job_claims.claim(received.job.id, now=services.now())
    assert job is not None
    version = await run_job(job, services)
    assert version is not None
    return version


async def indexed_terms(services: Services, rate: str, **dates: date) -> Version:
    """Receive and index a version of the terms with this rate and these dates."""
    text = samples.MARKDOWN.replace("2.35", rate).encode()
    request = replace(TERMS, metadata=Metadata(**dates))  # type: ignore[arg-type]  # dates only
    return await do_job(services, await receive(services, text, request))


async def publish(services: Services, data: bytes, **changed: Any) -> Version:
    """Receive a document, index it and have Lee approve it; `changed` are fields of its request."""
    version = await do_job(services, await receive(services, data, replace(REQUEST, **changed)))
    return await activate(version.key, "lee", services)


async def load_files(services: Services, files: Sequence[SourceFile], request: LoadRequest = LOAD) -> list[LoadOutcome]:
    return await load(LocalFiles(files), LocalTarget(services, request), LoadDisplay(Console(quiet=True)))


def original_in(folder: Path, digest: str) -> Path:
    """Return the stored original with a SHA-256."""
    [original] = folder.rglob(digest)
    return original


async def printed_status(services: Services, *, now: float) -> str:
    """Return what `ingest status` prints at an instant."""
    status = await read_status(services.catalogue, services.job_claims, services.blobs, "hanbit", now=now)
    show_status(status, Console(file=(printed := StringIO()), width=200))
    return printed.getvalue()


async def readiness(services: Services) -> tuple[int, dict[str, str]]:
    """Return the status and the reply of the staff API's `/readyz`."""
    app = create_app(services, sample_banks())
    async with AsyncClient(transport=ASGITransport(app=app), base_url="http://staff") as http:
        reply = await http.get("/readyz")
    return reply.status_code, reply.json()


class EndlessParser:
    """A parser that never ends; it is set as the services' parser."""

    def __init__(self) -> None:
        self.begun = anyio.Event()

    async def chunk(self, _path: Path, _chunking: Chunking) -> None:
        self.begun.set()
        await anyio.sleep_forever()


async def unfinished_jobs(services: Services) -> int:
    return (await services.job_claims.backlog()).waiting


async def passages_of(services: Services, version: Version) -> list[Passage]:
    return await services.index.passages(**name_of(version))


async def points_of(services: Services, version: Version) -> int:
    return await services.index.count(**name_of(version))


def name_of(version: Version) -> Mapping[str, Any]:
    """Return a version's name as the index takes it."""
    return {
        "tenant": version.key.tenant,
        "document_id": version.key.document_id,
        "version": version.key.version,
    }


async def versions_found(services: Services, *, at: float) -> set[int]:
    """Return the versions of which a customer's search finds passages at an instant that the chatbot would use."""
    access = Access(tenant="hanbit", groups=frozenset(("customers",)), as_of=at)
    hits = await services.index.search("정기예금 금리 12개월", access=access, limit=20)
    async with services.catalogue.read() as connection:
        withdrawals = Withdrawals(connection.engine, WithdrawalsSettings())
    await withdrawals.read()
    found = [hit.passage for hit in hits]
    return {p.version for p in found if not withdrawals.has_ended(p.tenant, p.document_id, p.version, now=at)}


async def unreported(_stage: Stage, _done: int, _total: int) -> None:
    """Take a report of progress, and do nothing with it."""
