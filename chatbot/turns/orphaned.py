"""Orphaned audit records: their process died before the answer had a log, or while SQL was unavailable.

Every replica scans for them when it starts and every ten minutes. It closes a record that is older than the longest
answer and whose answer is not open in Redis, if a second scan a minute later finds it again: until then, a live process
that waits for SQL can close its record itself.
"""

import time
from collections.abc import Callable, Sequence

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

    def __init__(
        self,
        audit: Audit,
        answer_log: AnswerLog,
        *,
        after: float,
        now: Callable[[], float],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`after`: seconds; records of running answers are younger."""
        self._audit = audit
        self._log = answer_log
        self._after = after
        self._now = now
        self._monotonic = monotonic
        self._found_at: dict[str, float] = {}
        """When the scans first found each record, in monotonic seconds."""

    async def scan_periodically(self) -> None:
        """Scan twice, a minute apart, and again every ten minutes, until cancelled."""
        while True:
            for wait in (_AGAIN_SECONDS, _EVERY_SECONDS):
                try:
                    await self.scan()
                except (AuditUnavailable, StoreUnavailable) as exc:
                    log.warning("orphaned_audit_scan_failed", error=exc.code)
                await anyio.sleep(wait)

    async def scan(self) -> int:
        """Close the records that an earlier scan found orphaned too; return their number.

        Raises:
            AuditUnavailable: the database cannot be asked.
            StoreUnavailable: Redis cannot be asked.
        """
        # A failed scan forgets them: live processes may have been unable to close their records too.
        found_at, self._found_at = self._found_at, {}
        older_than = self._now() - self._after
        rows = await self._audit.unclosed(older_than=older_than, since=older_than - _WINDOW_SECONDS)
        running = await self._log.running({AnswerId(row.answer_id): row.tenant for row in rows})
        orphaned = [row for row in rows if row.answer_id not in running]
        now = self._monotonic()
        self._found_at = {row.answer_id: found_at.get(row.answer_id, now) for row in orphaned}
        due = [row for row in orphaned if now - self._found_at[row.answer_id] >= _AGAIN_SECONDS]
        for row in due:
            await self._audit.close(
                closing_record(row, await self._log.all_events(row.tenant, AnswerId(row.answer_id)), at=self._now())
            )
            log.warning("orphaned_audit_record_closed", answer_id=row.answer_id)
        return len(due)


def closing_record(row: AuditRow, events: Sequence[Event], *, at: float) -> AuditClosed:
    """Return the closing record: from the answer's log if there is one, else an error."""
    last = events[-1] if events else None
    if isinstance(last, Done):
        result = AnswerResult(finish_reason=last.finish_reason, usage=last.usage, grounded=last.grounded)
    else:
        result = AnswerResult(error=last.code if isinstance(last, Failed) else ChatError.code)
    return AuditClosed(answer_id=row.answer_id, tenant=row.tenant, result=result, at=at, text=text_of(events))
