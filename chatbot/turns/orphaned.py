"""Orphaned audit records: their process died before the answer had a log, or while SQL was unavailable.

Every replica scans for them when it starts and every ten minutes. It closes a record that is older than the longest
answer and whose answer is not open in Redis, if a second scan a minute later finds it again: until then, a live process
that waits for SQL can close its record itself.
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

_AGAIN_SECONDS = 60.0
"""Time between the two scans that must both find a record before it is closed."""
_EVERY_SECONDS = 600.0
_WINDOW_SECONDS = 2 * 86400.0
"""Older records are left to `chatbot audit verify`, to bound a scan's rows."""


class OrphanedRecords:
    """Closes orphaned audit records."""

    def __init__(self, audit: Audit, answer_log: AnswerLog, *, after: float, now: Callable[[], float]) -> None:
        """`after`: seconds; records of running answers are younger."""
        self._audit = audit
        self._log = answer_log
        self._after = after
        self._now = now

    async def close_periodically(self) -> None:
        """Scan twice, a minute apart, and again every ten minutes, until cancelled."""
        while True:
            try:
                scanned = {row.answer_id for row in await self.scan()}
                await anyio.sleep(_AGAIN_SECONDS)
                await self.close(scanned)
            except (AuditUnavailable, StoreUnavailable) as exc:
                log.warning("orphaned_audit_scan_failed", error=exc.code)
            await anyio.sleep(_EVERY_SECONDS)

    async def scan(self) -> list[AuditRow]:
        """Return the records that are orphaned now.

        Raises:
            AuditUnavailable: the database cannot be asked.
            StoreUnavailable: Redis cannot be asked.
        """
        older_than = self._now() - self._after
        rows = await self._audit.unclosed(older_than=older_than, since=older_than - _WINDOW_SECONDS)
        running = await self._log.running({AnswerId(row.answer_id): row.tenant for row in rows})
        return [row for row in rows if row.answer_id not in running]

    async def close(self, scanned: Collection[str]) -> int:
        """Close those of the answers that an earlier scan returned that are still orphaned; return their number.

        Raises:
            AuditUnavailable, StoreUnavailable: as `scan`.
        """
        due = [row for row in await self.scan() if row.answer_id in scanned]
        for row in due:
            events = await self._log.all_events(row.tenant, AnswerId(row.answer_id))
            await self._audit.close(closing_record(row, events, at=self._now()))
            log.warning("orphaned_audit_record_closed", answer_id=row.answer_id)
        return len(due)


def closing_record(row: AuditRow, events: Sequence[Event], *, at: float) -> AuditClosed:
    """Return the closing record: from the answer's log if there is one, else an error."""
    last = events[-1] if events else None
    if isinstance(last, Done):
        grounded = last.grounded or last.written  # a result has one field for quoted and for checked words
        result = AnswerResult(finish_reason=last.finish_reason, usage=last.usage, grounded=grounded, quoted=last.quoted)
    else:
        result = AnswerResult(error=last.code if isinstance(last, Failed) else ChatError.code)
    return AuditClosed(answer_id=row.answer_id, tenant=row.tenant, result=result, at=at, text=text_of(events))
