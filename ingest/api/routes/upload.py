"""Uploads: a form whose file is streamed to the store of originals."""

from collections.abc import Sequence
from contextlib import aclosing
from datetime import date
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field, ValidationError

from ingest.api.auth import Staff
from ingest.api.dependencies import TheServices
from ingest.api.multipart import FILE, Form
from ingest.api.routes.documents import emit_event
from ingest.api.schemas import ReceivedOut
from ingest.catalogue import Metadata
from ingest.errors import Unprocessable
from ingest.uploads import UploadRequest
from knowledge.access import EVERY_CUSTOMER
from knowledge.identity import Principal
from knowledge.passage import Language
from telemetry.ocsf import Code

router = APIRouter(prefix="/v1/documents", tags=["documents"])


class UploadFields(BaseModel):
    """An upload's metadata; without `readers` every customer may read it; `link` is the bank's public page about it.

    With `again`, the bytes of an ended version become a new draft; without it, the upload returns that version.
    """

    title: str | None = Field(None, max_length=300)
    product: str | None = Field(None, max_length=300)
    link: str | None = Field(None, max_length=2000)
    language: Language | None = None
    readers: list[str] = Field(default=[], max_length=100)
    effective_from: date | None = None
    effective_until: date | None = None
    document_id: str | None = Field(None, min_length=1, max_length=100)
    again: bool = False


def _described() -> dict[str, Any]:
    """Return the form's OpenAPI description, because the route only has a stream."""
    schema = UploadFields.model_json_schema()
    schema["properties"][FILE] = {"type": "string", "contentMediaType": "application/octet-stream"}
    schema["required"] = [FILE]
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


@router.post("", status_code=202, openapi_extra=_described())
async def upload(request: Request, who: Staff, services: TheServices) -> ReceivedOut:
    """Receive a document, which a job indexes as a draft; the same bytes and metadata return the same ids."""
    form = Form(request.headers.get("content-type", ""), request.stream())
    async with aclosing(form.file()) as chunks:
        received = await services.uploads.receive_streamed(partial(_request_of, form, who), chunks)
    emit_event(Code.DOCUMENT_UPLOADED, who, received.version.key, services, detail=f"sha256:{received.version.sha256}")
    return ReceivedOut.of(received, services.now())


def _request_of(form: Form, who: Principal) -> UploadRequest:
    """Return the request in the fields of a completed form.

    Raises:
        Unprocessable: the file is missing, or a field is invalid.
    """
    if form.file_name is None:
        raise Unprocessable(f"{FILE}: Field required")
    try:
        fields = UploadFields.model_validate(_values(form.fields))
    except ValidationError as exc:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in exc.errors()[:5])
        raise Unprocessable(problems) from exc
    return UploadRequest(
        tenant=who.tenant,
        file_name=form.file_name or "unnamed",
        metadata=Metadata(
            title=fields.title,
            product=fields.product,
            link=fields.link,
            language=fields.language,
            readers=tuple(dict.fromkeys(fields.readers)) or (EVERY_CUSTOMER,),
            effective_from=fields.effective_from,
            effective_until=fields.effective_until,
        ),
        uploaded_by=who.sub,
        document_id=fields.document_id,
        again=fields.again,
    )


def _values(fields: Sequence[tuple[str, str]]) -> dict[str, str | list[str]]:
    """Return the fields by name; a page's empty input counts as absent, but an empty reader is invalid."""
    values: dict[str, str | list[str]] = {name: value for name, value in fields if value and name != "readers"}
    return values | {"readers": [value for name, value in fields if name == "readers"]}
