"""Uploads: a form whose file is copied to the store of originals."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack
from typing import Annotated, Any

import anyio
from fastapi import APIRouter, Depends, Request
from pydantic import Field, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.requests import ClientDisconnect

from ingest.api.auth import Staff
from ingest.api.dependencies import TheServices
from ingest.api.routes.documents import emit_event
from ingest.api.schemas import ReceivedOut
from ingest.catalogue import Upload
from ingest.errors import BadRequest, Unprocessable
from ingest.uploads import MetadataFields, storage_errors
from knowledge.identity import Principal
from telemetry.ocsf import Code

FILE = "file"
MOST_FIELDS = 200
MOST_FIELD_BYTES = 16 * 1024
RECEIVE_SECONDS = 30 * 60.0  # 100 MiB over a slow line; includes the wait while other forms are received
_CHUNK_BYTES = 1024 * 1024

router = APIRouter(prefix="/v1/documents", tags=["documents"])


class UploadFields(MetadataFields):
    """An upload's metadata; without `readers` every customer may read the document; `link` is the bank's page about it.

    With `again`, the bytes of an ended version become a new draft; otherwise the upload returns that version. Without
    `document_id`, uploads with the same `path` (of a file in a folder) are versions of one document.
    """

    again: bool = False
    path: str = Field("", max_length=4096)


def _openapi_body() -> dict[str, Any]:
    """Return the form's OpenAPI description, which FastAPI can't derive: the route parses the request itself."""
    schema = UploadFields.model_json_schema()
    schema["properties"][FILE] = {"type": "string", "contentMediaType": "application/octet-stream"}
    schema["required"] = [FILE]
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


async def received_form(request: Request, _who: Staff, services: TheServices) -> AsyncGenerator[FormData]:
    """Yield a form of short fields and one file, which is on disk until the response is sent.

    Raises:
        BadRequest: the form is malformed, has too many or too long fields, breaks off or takes too long.
        StorageFull, StorageUnavailable: the file cannot be written to the temporary disk.
    """
    async with AsyncExitStack() as stack:
        try:
            with anyio.fail_after(RECEIVE_SECONDS), storage_errors():
                await stack.enter_async_context(services.uploads.forms)
                reading = request.form(max_files=1, max_fields=MOST_FIELDS, max_part_size=MOST_FIELD_BYTES)
                form = await stack.enter_async_context(reading)
        except (TimeoutError, ClientDisconnect) as exc:
            raise BadRequest("the form breaks off, or takes too long") from exc
        yield form


@router.post("", status_code=202, openapi_extra=_openapi_body())
async def upload(who: Staff, services: TheServices, form: Annotated[FormData, Depends(received_form)]) -> ReceivedOut:
    """Receive a document, which a job indexes as a draft; the same bytes and metadata return the same ids."""
    file = form.get(FILE)
    if not isinstance(file, UploadFile):
        raise Unprocessable(f"{FILE}: Field required")
    received = await services.uploads.receive(_upload_of(form, file, who), _chunks(file))
    emit_event(Code.DOCUMENT_UPLOADED, who, received.version.key, services, detail=f"sha256:{received.version.sha256}")
    return ReceivedOut.of(received, services.now())


async def _chunks(file: UploadFile) -> AsyncIterator[bytes]:
    while chunk := await file.read(_CHUNK_BYTES):
        yield chunk


def _upload_of(form: FormData, file: UploadFile, who: Principal) -> Upload:
    """Return the upload that a form describes; raise Unprocessable if a field is invalid.

    An empty form field counts as absent (the staff page sends all its fields), but an empty value of `readers` is
    invalid.
    """
    values = {name: value for name, value in form.items() if value and name not in {FILE, "readers"}}
    try:
        fields = UploadFields.model_validate({**values, "readers": form.getlist("readers")})
    except ValidationError as exc:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in exc.errors()[:5])
        raise Unprocessable(problems) from exc
    return Upload(
        tenant=who.tenant,
        file_name=file.filename or "unnamed",
        metadata=fields.metadata,
        uploaded_by=who.sub,
        document_id=fields.document_id,
        path=fields.path,
        again=fields.again,
    )
