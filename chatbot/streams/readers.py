"""Readers of answers: connections that read from memory if this process writes the answer, else from its log."""

from collections import Counter, deque
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass

import structlog

from chatbot.errors import ChatError, Draining, ForeignEventId, LogLost, NotFound, RateLimited, StoreUnavailable, failed
from chatbot.streams.elsewhere import ReadsElsewhere
from chatbot.streams.log import AnswerId, LogEntry, entry_of
from chatbot.streams.takeover import OUTAGE_TERMS, Takeover
from chatbot.streams.writers import AnswerParts, Writers
from knowledge.identity import Principal
from telemetry.supervision import contained

log = structlog.get_logger(__name__)

_CUT_OFF = (
    "지금은 이 답변을 이어서 보여 드릴 수 없습니다. 잠시 뒤에 다시 열어 주세요. "
    "This answer cannot be shown further right now: please open it again in a moment."
)


class Readers:
    """Follows answers for connections, and limits the connections of a customer."""

    def __init__(self, parts: AnswerParts, writers: Writers, elsewhere: ReadsElsewhere) -> None:
        self._parts = parts
        self._log = parts.log
        self._writers = writers
        self._elsewhere = elsewhere
        self._of_customer: Counter[tuple[str, str]] = Counter()

    async def resume_position(self, who: Principal, answer_id: AnswerId, last_event_id: str | None) -> tuple[int, bool]:
        """Return the number in `last_event_id` (0 without an id), and whether that event has ended the answer.

        Raises:
            NotFound: the answer does not exist, or belongs to another customer.
            ForeignEventId: `last_event_id` belongs to another answer.
            LogLost: the log has no event of that number.
            StoreUnavailable: this process does not hold the answer, and Redis is unavailable or came back just now.
            Draining: this process does not hold the answer, and ends soon.
        """
        after = _number_of(last_event_id, answer_id)
        live = self._writers.find(who, answer_id)
        if live is not None:
            length, ended = len(live.entries), live.ended
        elif self._writers.draining:
            raise Draining(retry_after=1)
        else:
            try:
                length, lease_left = await self._log.touch(who, answer_id, "")
            except NotFound:
                # After an outage, the answer's writer may still have to restore a log that Redis has lost.
                if self._log.available_for < OUTAGE_TERMS * self._log.lease_seconds:
                    raise StoreUnavailable(retry_after=1) from None
                raise
            ended = lease_left is None
        if after > length:
            raise LogLost(f"the log ends at event {length}")
        return after, ended and after == length

    async def follow(self, who: Principal, answer_id: AnswerId, *, after: int) -> AsyncGenerator[LogEntry]:
        """Yield the entries after number `after`: from memory while this process writes the answer, else from the log.

        An answer whose writer is dead is taken over. If the answer cannot be read to its end, the last entry is an
        error with number 0. If this process hands the answer over and ends, the entries end without a last event: the
        client resumes on another replica.
        """
        error = ChatError()
        has_ended = False
        unlogged = deque[LogEntry]()  # entries that were yielded from memory, and that the log may lack
        with contained("stream", self._parts.on_failure):
            try:
                while not (has_ended or self._writers.handed_over):
                    live = self._writers.find(who, answer_id)
                    start = after - len(unlogged)
                    feed = self._elsewhere.follow(who, answer_id, start) if live is None else live.follow(start)
                    if unlogged:
                        feed = self._skip_yielded(unlogged, feed, who)
                    async with aclosing(feed) as entries:
                        async for entry in entries:
                            after = entry.n
                            yield entry
                            if entry.event.ends:
                                return
                    if live is not None:
                        has_ended = live.ended
                        unlogged = deque(live.entries[live.logged_count : after])
            except ChatError as exc:
                error = exc
            else:
                return
        yield entry_of(0, failed(error, handoff=self._cut_off_text(who)))

    def _cut_off_text(self, who: Principal) -> str:
        return f"{_CUT_OFF} {self._parts.handoff_text(who.tenant)}".strip()

    async def _skip_yielded(
        self, yielded: deque[LogEntry], feed: AsyncGenerator[LogEntry], who: Principal
    ) -> AsyncGenerator[LogEntry]:
        """Skip the entries of another writer that repeat the `yielded` ones; yield the entries after them.

        If an entry differs, yield an error instead, which ends the answer for this connection. The error has a number,
        as an event of the answer, so that the client does not resume in the other writer's text.
        """
        async with aclosing(feed) as entries:
            async for entry in entries:
                if not yielded:
                    yield entry
                elif entry.event != yielded.popleft().event:
                    log.warning("reader_disconnected_log_diverged", n=entry.n)
                    yield entry_of(entry.n + len(yielded) + 1, failed(LogLost(), handoff=self._cut_off_text(who)))
                    return

    def check_readers(self, who: Principal) -> None:
        """Raise `RateLimited` if the customer has too many open streams here; `edge` limits all customers' streams."""
        if self._of_customer[who.customer_id] >= self._parts.settings.readers_of_customer:
            raise RateLimited(scope="user", dimension="readers", retry_after=None)

    @contextmanager
    def reading(self, who: Principal, answer_id: AnswerId, *, resumable: bool = True) -> Iterator[None]:
        """Count a connection as a reader of the answer while the block runs.

        When the last reader leaves, the answer is cancelled: after the grace, or at once if that reader is not
        `resumable`.

        Raises:
            NotFound: the answer belongs to another customer.
            RateLimited: the customer has too many readers (`check_readers`).
        """
        self._writers.find(who, answer_id)  # checks the customer
        self.check_readers(who)
        customer = who.customer_id
        self._of_customer[customer] += 1
        self._writers.reader_came(answer_id)
        try:
            yield
        finally:
            self._of_customer[customer] -= 1
            if self._of_customer[customer] == 0:
                del self._of_customer[customer]
            self._writers.reader_left(answer_id, resumable=resumable)


@dataclass(frozen=True, slots=True)
class Answers:
    """The writers, the takeover and the readers of a process."""

    elsewhere: ReadsElsewhere
    writers: Writers
    takeover: Takeover
    readers: Readers

    @classmethod
    def of(cls, parts: AnswerParts) -> "Answers":
        """Create the three parts for this process."""
        writers = Writers(parts)
        elsewhere = ReadsElsewhere(parts)
        return cls(elsewhere, writers, Takeover(parts, writers, elsewhere), Readers(parts, writers, elsewhere))

    async def hand_over(self) -> None:
        """End every read, and hand the answers of this process over to other replicas.

        Raises:
            StoreUnavailable: the leases could not be ended; they lapse at the end of their term.
        """
        self.elsewhere.end_all()
        await self.writers.hand_over()


def _number_of(last_event_id: str | None, answer_id: AnswerId) -> int:
    """Return n of `<answer_id>.<n>`, or 0 without an id; raise `ForeignEventId` for any other id."""
    if not last_event_id:
        return 0
    owner, _, n = last_event_id.rpartition(".")
    if owner != answer_id or not n.isdecimal() or len(n) > 9:
        raise ForeignEventId
    return int(n)
