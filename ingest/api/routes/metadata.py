"""Change the dates and title of a version without a new upload."""

from datetime import date
from typing import Self

from fastapi import APIRouter
from pydantic import BaseModel, Field, model_validator

from ingest.api.auth import Staff, may_approve
from ingest.api.dependencies import NO_NUL, TheServices
from ingest.api.routes.documents import Key, emit_event
from ingest.api.schemas import ReceivedOut, VersionOut
from ingest.catalogue import ApprovalDecision, Dates, is_line
from ingest.errors import Unprocessable
from ingest.pipeline import update_index
from telemetry.ocsf import Code

router = APIRouter(prefix="/v1/documents/{document_id}/versions/{version}", tags=["documents"])


class DatesIn(BaseModel):
    """A version's first and last day, inclusive; null means from its approval, and without end."""

    effective_from: date | None
    effective_until: date | None

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.effective_from and self.effective_until and self.effective_until < self.effective_from:
            raise ValueError("effective_until lies before effective_from")
        return self


class TitleIn(BaseModel):
    """A document's title, shown to customers with each passage."""

    title: str = Field(max_length=300, pattern=NO_NUL)


@router.put("/dates")
async def set_dates(key: Key, who: Staff, services: TheServices, body: DatesIn) -> VersionOut:
    """Change a version's dates: any staff for a draft, an approver for an approved version."""
    decision = ApprovalDecision(by=who.sub, at=services.now())
    dates = Dates(effective_from=body.effective_from, effective_until=body.effective_until)
    changed = await services.approvals.set_dates(key, dates, decision, may_approve=may_approve(who))
    emit_event(Code.VERSION_DATED, who, key, services)
    await update_index(key, changed, services)
    return VersionOut.of(await services.catalogue.version(key), decision.at)


@router.put("/title", status_code=202)
async def set_title(key: Key, who: Staff, services: TheServices, body: TitleIn) -> ReceivedOut:
    """Change a title: a draft is indexed again with it; for an approved version, a new draft is created."""
    if not is_line(body.title):
        raise Unprocessable("title: 1 to 300 characters on one line")
    decision = ApprovalDecision(by=who.sub, at=services.now())
    received = await services.approvals.set_title(key, body.title, decision)
    emit_event(Code.VERSION_TITLED, who, received.version.key, services)
    return ReceivedOut.of(received, decision.at)
