"""Orphaned audit records: their process died before the answer had a log, or while SQL was unavailable.

Every replica looks at its start and from time to time. It leaves alone what may be alive: an opening is closed only
where it is older than any answer gets, Redis knows of no writer, and both are still so a minute later, in which a
process that waits for SQL has closed its own.
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
        self._seen: dict[str, float] = {}

    async def close_forever(self) -> None:
        """Look now, a minute later, and then every ten minutes and a minute after that."""
        while True:
            for wait in (_AGAIN_SECONDS, _EVERY_SECONDS):
                try:
                    await self.look()
                except (AuditUnavailable, StoreUnavailable) as exc:
                    log.warning("orphaned_audit_scan_failed", error=exc.code)
                await anyio.sleep(wait)

    async def look(self) -> int:
        """Close the records that an earlier scan found orphaned too; return their number.

        Raises:
            AuditUnavailable: the database cannot be asked.
            StoreUnavailable: Redis cannot be asked.
        """
        seen, self._seen = self._seen, {}  # after a failed look anew: who lives may not have been able to close either
        older_than = self._now() - self._after
        rows = await self._audit.unclosed(older_than=older_than, since=older_than - _WINDOW_SECONDS)
        running = await self._log.running({AnswerId(row.answer_id): row.tenant for row in rows})
        orphaned = [row for row in rows if row.answer_id not in running]
        now = self._monotonic()
        self._seen = {row.answer_id: seen.get(row.answer_id, now) for row in orphaned}
        due = [row for row in orphaned if now - self._seen[row.answer_id] >= _AGAIN_SECONDS]
        for row in due:
            await self._audit.close(
                closing(row, await self._log.all_events(row.tenant, AnswerId(row.answer_id)), at=self._now())
            )
            log.warning("orphaned_audit_record_closed", answer_id=row.answer_id)
        return len(due)


def closing(row: AuditRow, events: Sequence[Event], *, at: float) -> AuditClosed:
    """Return the closing record: from the answer's log if there is one, else an error."""
    last = events[-1] if events else None
    if isinstance(last, Done):
        result = AnswerResult(finish_reason=last.finish_reason, usage=last.usage, grounded=last.grounded)
    else:
        result = AnswerResult(error=last.code if isinstance(last, Failed) else ChatError.code)
    return AuditClosed(answer_id=row.answer_id, tenant=row.tenant, result=result, at=at, text=text_of(events))
