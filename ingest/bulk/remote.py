"""The target of `ingest load --url`: the API of the process that has the index open."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import aiohttp
import anyio
from pydantic import BaseModel, ValidationError
from yarl import URL

from ingest.bulk.load import POLL_SECONDS, ApiRefused, Pending, attempt
from ingest.bulk.local import key_of
from ingest.bulk.manifest import SourceFile
from ingest.bulk.progress import LoadOutcome
from ingest.catalogue import JobState, Metadata, State, VersionKey

PATIENCE_SECONDS = 60.0  # how long a job is polled while the API is unavailable; covers a restart
_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=120)


class _Received(BaseModel):
    document_id: str
    version: int
    job_id: str
    state: State


class _Job(BaseModel):
    state: JobState


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


class ApiTarget:
    """Load documents through an API; without an approver's token, they stay drafts."""

    at_once = 4

    def __init__(self, http: aiohttp.ClientSession, token: str, approver_token: str | None) -> None:
        self._http = http
        self._token = token
        self.approves = approver_token is not None
        self._approver_token = approver_token

    async def check(self) -> None:
        """Check that the API answers and accepts the token; raise ApiRefused otherwise."""
        await self._call("GET", "/v1/documents?limit=1")

    async def receive(self, file: SourceFile) -> LoadOutcome:
        form = aiohttp.FormData(quote_fields=False)  # otherwise a Korean file name is sent percent-encoded
        body = await anyio.Path(file.path).read_bytes()
        form.add_field("file", body, filename=file.path.name, content_type="application/octet-stream")
        form.add_field("path", file.name)
        for name, value in _form_fields(file.metadata, file.document_id):
            form.add_field(name, value)
        received = _Received.model_validate_json(await self._call("POST", "/v1/documents", body=form))
        # The API takes the tenant from the token.
        key = VersionKey(tenant="", document_id=received.document_id, version=received.version)
        was_there = received.state not in (State.RECEIVED, State.FAILED)
        return LoadOutcome(file=file, key=key, state=received.state, was_there=was_there, job_id=received.job_id)

    async def prepare(self, pending: Sequence[Pending]) -> AsyncGenerator[Pending]:
        for file in pending:
            yield file

    async def index(self, pending: Pending) -> LoadOutcome:
        """Poll the job until it ends; tolerate PATIENCE_SECONDS without an answer."""
        last_answer_at = anyio.current_time()
        while True:
            try:
                job = _Job.model_validate_json(await self._call("GET", f"/v1/jobs/{pending.outcome.job_id}"))
                if job.state in (JobState.DONE, JobState.FAILED, JobState.DEAD):
                    return await self.refreshed(pending.outcome)
                last_answer_at = anyio.current_time()
            except ApiRefused as exc:
                if not exc.retryable or anyio.current_time() - last_answer_at >= PATIENCE_SECONDS:
                    raise
            await anyio.sleep(POLL_SECONDS)

    async def approve(self, drafts: Sequence[LoadOutcome]) -> list[LoadOutcome]:
        return [await attempt(draft, self._approve(draft)) for draft in drafts]

    async def refreshed(self, outcome: LoadOutcome) -> LoadOutcome:
        return _updated_outcome(outcome, await self._call("GET", _address(outcome)))

    async def _approve(self, draft: LoadOutcome) -> LoadOutcome:
        dates = aiohttp.JsonPayload(_dates(draft.file.metadata))
        answer = await self._call("POST", f"{_address(draft)}/approve", body=dates, token=self._approver_token)
        return _updated_outcome(draft, answer)

    async def _call(
        self,
        method: str,
        address: str,
        *,
        body: aiohttp.FormData | aiohttp.JsonPayload | None = None,
        token: str | None = None,
    ) -> bytes:
        """Return the body of a successful reply; raise ApiRefused for any other reply, or without a reply."""
        try:
            headers = {"authorization": f"Bearer {token or self._token}"}
            # Documents and tokens must not follow a redirect to another address.
            async with self._http.request(
                method, address, data=body, headers=headers, allow_redirects=False
            ) as response:
                answer = await response.read()
                if response.status < 300:
                    return answer
        except ValueError as exc:  # includes aiohttp.InvalidURL
            raise ApiRefused("bad_request", "--url or --token has a character that a request cannot carry") from exc
        except (aiohttp.ClientError, TimeoutError) as exc:
            raise ApiRefused("unavailable", "the API at the --url address does not answer", retryable=True) from exc
        if response.status < 400:
            raise ApiRefused("bad_request", "the --url address redirects: name the address of the API itself")
        try:
            problem = _Problem.model_validate_json(answer)
        except ValidationError:  # not the API's own answer: a proxy sends 502, 503 or 504 while the API is unavailable
            problem = _Problem(retryable=response.status >= 500)
        raise ApiRefused(problem.code, problem.detail, retryable=problem.retryable)


@asynccontextmanager
async def open_api(url: str, token: str, approver_token: str | None) -> AsyncGenerator[ApiTarget]:
    """Connect to a running API; raise ApiRefused if it doesn't answer or rejects the uploader's `token`."""
    async with _session(url) as http:
        target = ApiTarget(http, token, approver_token)
        await target.check()
        yield target


def _session(url: str) -> aiohttp.ClientSession:
    with suppress(ValueError):
        address = URL(url)
        if address.scheme in ("http", "https") and address.host and address.user is None:
            return aiohttp.ClientSession(base_url=address, timeout=_TIMEOUT)
    raise ApiRefused("bad_request", "--url is not the address of an API, such as http://127.0.0.1:8001")


def _dates(metadata: Metadata) -> Mapping[str, str | None]:
    begin, end = metadata.effective_from, metadata.effective_until
    return {
        "effective_from": begin.isoformat() if begin else None,
        "effective_until": end.isoformat() if end else None,
    }


def _form_fields(metadata: Metadata, document_id: str | None) -> list[tuple[str, str]]:
    values: Mapping[str, str | None] = {
        "title": metadata.title,
        "product": metadata.product,
        "link": metadata.link,
        "language": metadata.language,
        **_dates(metadata),
        "document_id": document_id,
    }
    fields = [(name, value) for name, value in values.items() if value is not None]
    return fields + [("readers", reader) for reader in metadata.readers]


def _address(outcome: LoadOutcome) -> str:
    key = key_of(outcome)
    return f"/v1/documents/{key.document_id}/versions/{key.version}"


def _updated_outcome(outcome: LoadOutcome, answer: bytes) -> LoadOutcome:
    """Return a file's outcome with the state of its version, which is the API's answer (JSON)."""
    version = _Version.model_validate_json(answer)
    return replace(
        outcome,
        state=version.state,
        passages=version.passages,
        reason=version.reason,
        detail=version.detail,
        visible_from=version.visible_from,
    )
