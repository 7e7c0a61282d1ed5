"""`ingest load --url`: as `ingest.bulk.load`, through the API of a process that holds the index."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import aiohttp
import anyio
from pydantic import BaseModel, ValidationError
from yarl import URL

from ingest.bulk.load import LoadOutcome, ProgressDisplay
from ingest.bulk.manifest import SourceFile
from ingest.catalogue import JobState, Metadata, Stage, State, VersionKey

_AT_ONCE = 4
_POLL_SECONDS = 0.3
_SOON_SECONDS = 10.0
PATIENCE_SECONDS = 60.0
"""The time for which a job is polled while the API is away: as long as a restart takes."""
_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=120)


class ApiRefused(Exception):
    """The API refuses or does not answer: `code` and a sentence; `retryable` where it may pass by itself."""

    def __init__(self, code: str, detail: str, *, retryable: bool = False) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.retryable = retryable


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """A running API and the tokens to use there; without an approver's token everything stays a draft."""

    url: str
    token: str
    approver_token: str | None = None


class _Received(BaseModel):
    document_id: str
    version: int
    job_id: str
    state: State


class _Job(BaseModel):
    state: JobState
    stage: Stage
    done: int
    total: int


class _Version(BaseModel):
    state: State
    reason: str | None
    detail: str | None
    passages: int
    visible_from: float | None


class _Problem(BaseModel):
    code: str = "unknown"
    detail: str = "the API refused without a reason"
    retryable: bool = False


async def load(files: Sequence[SourceFile], api: Api, display: ProgressDisplay) -> list[LoadOutcome]:
    """Load files through an API and return their outcomes, in their order.

    Raises:
        ApiRefused: its address is not valid, it cannot be reached at all, or it does not accept the token.
    """
    display.begin(len(files))
    outcomes: dict[int, LoadOutcome] = {}
    at_once = anyio.CapacityLimiter(_AT_ONCE)
    async with _session(api.url) as http:
        await _call(http, "GET", "/v1/documents?limit=1", api.token)
        received = [await _upload(http, api, file) for file in files]
        async with anyio.create_task_group() as group:

            async def follow(position: int, outcome: LoadOutcome, job_id: str | None) -> None:
                async with at_once:
                    outcomes[position] = await _follow(http, api, outcome, job_id, display) if job_id else outcome
                    display.end(outcomes[position])

            for position, (outcome, job_id) in enumerate(received):
                group.start_soon(follow, position, outcome, job_id)
        indexed = [outcomes[position] for position in range(len(received))]
        if api.approver_token is None:
            return indexed
        return await _wait_until_active(http, api, await _approve(http, api.approver_token, indexed, display))


def _session(url: str) -> aiohttp.ClientSession:
    with suppress(ValueError):
        address = URL(url)
        if address.scheme in ("http", "https") and address.host and address.user is None:
            return aiohttp.ClientSession(base_url=address, timeout=_TIMEOUT)
    raise ApiRefused("bad_request", "--url is not the address of an API, such as http://127.0.0.1:8001")


async def _upload(http: aiohttp.ClientSession, api: Api, file: SourceFile) -> tuple[LoadOutcome, str | None]:
    """Upload one file; one after the other, because versions are numbered in the order in which they come."""
    try:
        body = await anyio.Path(file.path).read_bytes()
    except OSError as exc:
        return LoadOutcome(file=file, reason="unreadable_file", detail=exc.strerror), None
    form = aiohttp.FormData(quote_fields=False)  # else a Korean file name is sent percent-encoded
    form.add_field("file", body, filename=file.path.name, content_type="application/octet-stream")
    for name, value in _fields(file.metadata, file.document_id):
        form.add_field(name, value)
    try:
        received = _Received.model_validate_json(await _call(http, "POST", "/v1/documents", api.token, form))
    except ApiRefused as exc:
        return LoadOutcome(file=file, reason=exc.code, detail=exc.detail), None
    key = VersionKey(tenant="", document_id=received.document_id, version=received.version)
    was_there = received.state not in (State.RECEIVED, State.FAILED)
    return LoadOutcome(file=file, key=key, state=received.state, was_there=was_there), received.job_id


def _dates(metadata: Metadata) -> Mapping[str, str | None]:
    begin, end = metadata.effective_from, metadata.effective_until
    return {
        "effective_from": begin.isoformat() if begin else None,
        "effective_until": end.isoformat() if end else None,
    }


def _fields(metadata: Metadata, document_id: str | None) -> list[tuple[str, str]]:
    values: Mapping[str, str | None] = {
        "title": metadata.title,
        "product": metadata.product,
        "language": metadata.language,
        **_dates(metadata),
        "document_id": document_id,
    }
    fields = [(name, value) for name, value in values.items() if value is not None]
    return fields + [("readers", reader) for reader in metadata.readers]


async def _follow(
    http: aiohttp.ClientSession, api: Api, outcome: LoadOutcome, job_id: str, display: ProgressDisplay
) -> LoadOutcome:
    answered = anyio.current_time()
    while True:
        try:
            job = _Job.model_validate_json(await _call(http, "GET", f"/v1/jobs/{job_id}", api.token))
            if job.state in (JobState.DONE, JobState.FAILED, JobState.DEAD):
                return _outcome(outcome, await _version(http, api.token, outcome))
            answered = anyio.current_time()
            display.part(outcome.file.name, job.stage, job.done, job.total)
        except ApiRefused as exc:
            if not exc.retryable or anyio.current_time() - answered >= PATIENCE_SECONDS:
                return replace(outcome, reason=exc.code, detail=exc.detail)
        await anyio.sleep(_POLL_SECONDS)


async def _approve(
    http: aiohttp.ClientSession, approver_token: str, outcomes: Sequence[LoadOutcome], display: ProgressDisplay
) -> list[LoadOutcome]:
    approved: list[LoadOutcome] = []
    for outcome in outcomes:
        approved.append(await _approved(http, approver_token, outcome))
        display.approved(len(approved), len(outcomes))
    return approved


async def _approved(http: aiohttp.ClientSession, approver_token: str, outcome: LoadOutcome) -> LoadOutcome:
    if outcome.key is None or outcome.state is not State.INDEXED:
        return outcome
    address = f"/v1/documents/{outcome.key.document_id}/versions/{outcome.key.version}/approve"
    try:
        answer = await _call(http, "POST", address, approver_token, aiohttp.JsonPayload(_dates(outcome.file.metadata)))
    except ApiRefused as exc:
        return replace(outcome, reason=exc.code, detail=exc.detail)
    return _outcome(outcome, _Version.model_validate_json(answer))


async def _wait_until_active(
    http: aiohttp.ClientSession, api: Api, outcomes: Sequence[LoadOutcome]
) -> list[LoadOutcome]:
    """Return when what starts within _SOON_SECONDS is active by the API's own clock."""
    active: list[LoadOutcome] = []
    for outcome in outcomes:
        with anyio.move_on_after(_SOON_SECONDS):
            while outcome.reason is None and outcome.state is State.APPROVED:
                outcome = _outcome(outcome, await _version(http, api.token, outcome))  # noqa: PLW2901 - the same file, later
                if outcome.state is State.APPROVED:
                    await anyio.sleep(_POLL_SECONDS)
        active.append(outcome)
    return active


async def _version(http: aiohttp.ClientSession, token: str, outcome: LoadOutcome) -> _Version:
    if outcome.key is None:
        raise ApiRefused("not_found", "the API gave no version")
    address = f"/v1/documents/{outcome.key.document_id}/versions/{outcome.key.version}"
    return _Version.model_validate_json(await _call(http, "GET", address, token))


def _outcome(outcome: LoadOutcome, version: _Version) -> LoadOutcome:
    return replace(
        outcome,
        state=version.state,
        passages=version.passages,
        reason=version.reason,
        detail=version.detail,
        visible_from=version.visible_from,
    )


async def _call(
    http: aiohttp.ClientSession,
    method: str,
    address: str,
    token: str,
    body: aiohttp.FormData | aiohttp.JsonPayload | None = None,
) -> bytes:
    try:
        headers = {"authorization": f"Bearer {token}"}
        # Documents and tokens go to the address that was named and nowhere else.
        async with http.request(method, address, data=body, headers=headers, allow_redirects=False) as response:
            answer = await response.read()
            if response.status < 300:
                return answer
    except ValueError as exc:  # aiohttp.InvalidURL is one too
        raise ApiRefused("bad_request", "--url or --token holds what no request can carry") from exc
    except (aiohttp.ClientError, TimeoutError) as exc:
        raise ApiRefused("unavailable", "the API at the --url address does not answer", retryable=True) from exc
    if response.status < 400:
        raise ApiRefused("bad_request", "the --url address redirects: name the address of the API itself")
    try:
        problem = _Problem.model_validate_json(answer)
    except ValidationError:  # not the API's own answer: a proxy before it sends 502, 503 or 504 while it is away
        problem = _Problem(retryable=response.status >= 500)
    raise ApiRefused(problem.code, problem.detail, retryable=problem.retryable)
