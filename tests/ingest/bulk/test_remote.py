"""`ingest load --url` against an API that is away for a while, and one whose job is given up."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from rich.console import Console

from ingest.bulk import ApiRefused, LoadDisplay, LoadOutcome, LocalFiles, SourceFile, load, open_api, remote
from ingest.catalogue import JobState, State

pytestmark = pytest.mark.anyio

JOB = {"job_id": "j", "document_id": "a", "version": 1, "file_name": "a.md", "stage": "embed", "done": 1, "total": 2}
JOB |= {"attempts": 3, "reason": None, "detail": None}
NO_METADATA = ("title", "product", "language", "format", "effective_from", "effective_until")
NOT_APPROVED = ("approved_by", "approved_at", "visible_from", "visible_until")
VERSION = dict.fromkeys((*NO_METADATA, *NOT_APPROVED)) | {
    "document_id": "a", "version": 1, "state": "failed", "reason": "unavailable", "detail": "the index is away",
    "readers": ["customers"], "file_name": "a.md", "size": 1, "sha256": "0", "passages": 0, "uploaded_by": "kim",
    "uploaded_at": 0.0,
}  # fmt: skip


Answer = Callable[[web.Request], Awaitable[web.Response]]


class Scripted:
    """A staff API that accepts every file and answers for its job with these answers, then that the job is dead."""

    def __init__(self, *answers: web.Response | None) -> None:
        self._answers: Iterator[web.Response | None] = iter(answers)
        self.received = self.job_reads = 0

    async def answer(self, request: web.Request) -> web.Response:
        if request.method == "POST":
            self.received += 1
            return web.json_response({"document_id": "a", "version": 1, "job_id": "j", "state": "received"}, status=202)
        if request.path.startswith("/v1/jobs"):
            self.job_reads += 1
            return next(self._answers) or web.json_response(JOB | {"state": JobState.DEAD})
        return web.json_response(VERSION)


def refused(status: int, *, retryable: bool) -> web.Response:
    problem = {"code": "catalogue_unavailable" if retryable else "not_found", "detail": "no", "retryable": retryable}
    return web.json_response(problem, status=status)


@asynccontextmanager
async def serving(answer: Answer) -> AsyncGenerator[str]:
    """Serve an API on loopback; yield its URL."""
    app = web.Application()
    app.router.add_route("*", "/{any:.*}", answer)
    async with TestServer(app) as server:
        yield str(server.make_url("/"))


async def loaded(answer: Answer, folder: Path) -> LoadOutcome:
    """Load one file through an API."""
    (file := folder / "a.md").write_text("# a", "utf-8")
    async with serving(answer) as url, open_api(url, "t", None) as target:
        display = LoadDisplay(Console(quiet=True))
        return (await load(LocalFiles([SourceFile(path=file, name="a")]), target, display))[0]


async def test_a_dead_job_ends_the_load_after_an_outage_of_the_api(tmp_path: Path) -> None:
    api = Scripted(refused(503, retryable=True), web.Response(status=502, text="a proxy"), None)
    outcome = await loaded(api.answer, tmp_path)
    assert (outcome.state, outcome.reason, outcome.detail) == (State.FAILED, "unavailable", "the index is away")


@pytest.mark.parametrize(("retryable", "patience"), [(False, 60.0), (True, 0.0)])
async def test_a_lasting_refusal_ends_the_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patience: float, *, retryable: bool
) -> None:
    monkeypatch.setattr(remote, "PATIENCE_SECONDS", patience)
    api = Scripted(refused(503 if retryable else 404, retryable=retryable))
    outcome = await loaded(api.answer, tmp_path)
    assert (outcome.reason, api.job_reads) == ("catalogue_unavailable" if retryable else "not_found", 1)


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:8001", "http://user:pw@127.0.0.1:1", "ftp://127.0.0.1", "http://[::1", "http://a:1/path"]
)
async def test_an_invalid_url_is_one_sentence_that_shows_no_password(url: str) -> None:
    with pytest.raises(ApiRefused, match="--url") as refused:
        async with open_api(url, "t", None):
            pass
    assert (refused.value.code, "pw" in refused.value.detail) == ("bad_request", False)


async def test_a_redirect_takes_the_document_to_no_other_host(tmp_path: Path) -> None:
    elsewhere = Scripted()
    async with serving(elsewhere.answer) as other:

        async def redirect(request: web.Request) -> web.Response:
            if request.method == "GET":
                return web.json_response([])
            return web.Response(status=307, headers={"location": f"{other}v1/documents"})

        outcome = await loaded(redirect, tmp_path)
    assert (outcome.reason, elsewhere.received) == ("bad_request", 0)
