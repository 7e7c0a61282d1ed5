"""Follow answers that other replicas write: one poll reads all their logs for all readers of this process.

Once a second, one command marks the answers as read and checks their logs. `Takeover` continues dead writers' answers.
"""

import math
from collections.abc import AsyncGenerator

import anyio

from chatbot.errors import ChatError, LogLost, NotFound, StoreUnavailable
from chatbot.streams.feed import Feed
from chatbot.streams.log import AnswerId, AnswerProgress, LogEntry
from chatbot.streams.writers import AnswerParts
from knowledge.identity import Principal
from telemetry.supervision import contained

POLL_SECONDS = 0.05
_CHECK_SECONDS = 1.0  # the interval of the checks; a mark "read" counts for longer (`chatbot.streams.log`)


class SharedRead(Feed):
    """The entries of one answer that this process has read from the log for all its readers."""

    def __init__(self, who: Principal) -> None:
        super().__init__()
        self.who = who
        self.followers = 0
        self.log_existed = False  # whether a check has found its log since the read began
        self._failing_since = math.inf

    def record_success(self) -> None:
        """Record that the log could be read."""
        self._failing_since = math.inf

    def record_failure(self, error: ChatError, *, patience: float) -> None:
        """Record a failed read of the log; close with `error` if all reads have failed for `patience` seconds."""
        now = anyio.current_time()
        self._failing_since = min(self._failing_since, now)
        if now - self._failing_since >= patience:
            self.close(error)


class ReadsElsewhere:
    """The shared reads of answers that other replicas write."""

    def __init__(self, parts: AnswerParts) -> None:
        self._parts = parts
        self._log = parts.log
        self._reads: dict[AnswerId, SharedRead] = {}
        self._polling = False
        self._check_at = 0.0

    def __contains__(self, answer_id: AnswerId) -> bool:
        """Return whether an answer is read here from its log."""
        return answer_id in self._reads

    def end(self, answer_id: AnswerId, error: ChatError | None = None) -> None:
        """Close the read of an answer; its followers continue from memory if this process writes it now."""
        if (read := self._reads.pop(answer_id, None)) is not None:
            read.close(error)

    async def follow(self, who: Principal, answer_id: AnswerId, after: int) -> AsyncGenerator[LogEntry]:
        """Yield the entries after number `after`, until the last one or until this process writes the answer.

        Raises:
            NotFound: the answer does not exist, or belongs to another customer.
            LogLost: the answer has ended, but its log has no last event after number `after`.
            StoreUnavailable: Redis has been unavailable for `AnswerSettings.patience`.
        """
        if answer_id not in self._reads:
            self._reads[answer_id] = SharedRead(who)
            self._check_at = 0.0
        read = self._reads[answer_id]
        if read.who.customer_id != who.customer_id:
            raise NotFound("answer not found")
        if not self._polling:
            self._polling = True
            self._parts.tasks.start_soon(self._poll)
        read.followers += 1
        try:
            async for entry in read.follow(after):
                yield entry
        finally:
            read.followers -= 1
            if not read.followers and self._reads.get(answer_id) is read:
                self.end(answer_id)

    def end_all(self, error: ChatError | None = None) -> None:
        """Close every read: this process is stopping, or polling failed."""
        for answer_id in tuple(self._reads):
            self.end(answer_id, error)

    async def _poll(self) -> None:
        """Poll the logs while there are shared reads."""
        try:
            while self._reads:
                with contained("reader", self._parts.on_failure):
                    await self._read_all()
                    self._reads = {answer_id: read for answer_id, read in self._reads.items() if not read.closed}
                    await anyio.sleep(POLL_SECONDS)
                    continue
                # `contained` has caught a bug.
                self.end_all(ChatError())
        finally:
            self._polling = False

    async def _read_all(self) -> None:
        """Read the new entries of all logs; once a second, also mark the answers as read and check their logs."""
        now = anyio.current_time()
        reads = dict(self._reads)
        progress: dict[AnswerId, AnswerProgress] = {}
        try:
            if now >= self._check_at:
                self._check_at = now + _CHECK_SECONDS
                progress = await self._log.touch_all({answer_id: read.who for answer_id, read in reads.items()}, "read")
            new_entries = await self._log.read_all(
                {answer_id: (read.who.tenant, len(read.entries)) for answer_id, read in reads.items()}
            )
        except StoreUnavailable as exc:
            for read in reads.values():
                read.record_failure(exc, patience=self._parts.settings.patience)
            return
        for answer_id, entries in new_entries.items():
            reads[answer_id].record_success()
            reads[answer_id].add(entries)
            if entries[-1].event.ends:
                reads[answer_id].close()
        for answer_id, answer_progress in progress.items():
            if not reads[answer_id].closed:
                self._apply_progress(reads[answer_id], answer_progress, has_new_entries=answer_id in new_entries)

    def _apply_progress(self, read: SharedRead, progress: AnswerProgress, *, has_new_entries: bool) -> None:
        """Close the read of an answer that has no log, or that has ended without a last event."""
        if progress.events is None:
            # Redis may have lost the log in a failover: then the answer's writer restores it.
            may_be_restored = read.log_existed and not progress.deleted
            patience = self._parts.settings.patience if may_be_restored else 0.0
            read.record_failure(NotFound("answer not found"), patience=patience)
            return
        read.log_existed = True
        read.record_success()
        if progress.lease_left is None and not has_new_entries:
            read.close(LogLost(f"the log ends at event {progress.events}"))
