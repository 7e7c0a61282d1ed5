"""Close orphaned audit records: their process died before the answer had a log, or while SQL was unavailable.

Every replica scans for them when it starts and every ten minutes. A record is orphaned if it is older than the longest
answer and its answer is not open in Redis. It is closed only if a second scan finds it again a minute later: until
then, a live process that waits for SQL can close its record itself.
"""

from collections.abc import Callable, Collection, Sequence

import anyio
import structlog

from chatbot.audit import Audit, AuditClosed, AuditRow
from chatbot.errors import AuditUnavailable, ChatError, StoreUnavailable
from chatbot.events import Done, Event, Failed
from chatbot.records import AnswerResult
from chatbot.streams import AnswerId, AnswerLog
from chatbot.turns.state import text_of

log = structlog.get_logger(__name__)

_SECOND_SCAN_AFTER_SECONDS = 60.0
_SCAN_EVERY_SECONDS = 600.0
_WINDOW_SECONDS = 2 * 86400.0  # older records are left to `chatbot audit verify`, to bound a scan's rows


class OrphanedRecords:
    """Closes orphaned audit records; raises `AuditUnavailable` or `StoreUnavailable` if SQL or Redis is unavailable."""

    def __init__(self, audit: Audit, answer_log: AnswerLog, *, least_age: float, now: Callable[[], float]) -> None:
        """`least_age` is the age in seconds from which a record may be orphaned: longer than any answer takes."""
        self._audit = audit
        self._log = answer_log
        self._least_age = least_age
        self._now = now

    async def close_periodically(self) -> None:
        """Scan twice, a minute apart, and again every ten minutes, until cancelled."""
        while True:
            try:
                first_scan = {row.answer_id for row in await self.scan()}
                await anyio.sleep(_SECOND_SCAN_AFTER_SECONDS)
                await self.close(first_scan)
            except (AuditUnavailable, StoreUnavailable) as exc:
                log.warning("orphaned_audit_scan_failed", error=exc.code)
            await anyio.sleep(_SCAN_EVERY_SECONDS)

    async def scan(self) -> list[AuditRow]:
        """Return the records that are orphaned now."""
        older_than = self._now() - self._least_age
        rows = await self._audit.unclosed_rows(older_than=older_than, since=older_than - _WINDOW_SECONDS)
        running = await self._log.running_answers({AnswerId(row.answer_id): row.tenant for row in rows})
        return [row for row in rows if row.answer_id not in running]

    async def close(self, first_scan: Collection[str]) -> int:
        """Scan again, and close the records of answers that the first scan also returned; return their number."""
        orphaned_rows = [row for row in await self.scan() if row.answer_id in first_scan]
        for row in orphaned_rows:
            events = await self._log.all_events(row.tenant, AnswerId(row.answer_id))
            await self._audit.close(closing_record(row, events, at=self._now()))
            log.warning("orphaned_audit_record_closed", answer_id=row.answer_id)
        return len(orphaned_rows)


def closing_record(row: AuditRow, events: Sequence[Event], *, at: float) -> AuditClosed:
    """Return the closing record, from the last event in the answer's log; without a log, an error."""
    last = events[-1] if events else None
    if isinstance(last, Done):
        grounded = last.grounded or last.written  # `Done.grounded` is for quotes only, the result's for both
        result = AnswerResult(finish_reason=last.finish_reason, usage=last.usage, grounded=grounded, quoted=last.quoted)
    elif isinstance(last, Failed):
        result = AnswerResult(error=last.code)
    else:
        result = AnswerResult(error=ChatError.code)
    return AuditClosed(answer_id=row.answer_id, tenant=row.tenant, result=result, at=at, text=text_of(events))
