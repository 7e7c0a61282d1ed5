"""Write the answers of this process: they run in the application's task group, and log each event before publishing it.

Events that are emitted during an append are appended together after it. While Redis is unavailable, the stream
continues from this process's memory, with a notice, and cannot be resumed elsewhere. An answer without readers is
cancelled after a grace period: this closes the model's socket, and the answer then ends like any cancelled one.
"""

from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import anyio
import msgspec
import structlog
from anyio.abc import TaskGroup
from pydantic import BaseModel, Field

from chatbot.deferred import DeferredWrite, DeferredWrites
from chatbot.errors import ChatError, Draining, NotFound, StoreUnavailable, failed
from chatbot.events import Failed, Notice, NoticeCode
from chatbot.streams.live import LiveAnswer
from chatbot.streams.log import AnswerId, AnswerLog, LogAppend, LogEntry, LogOpening, WriterStanding, entry_of
from knowledge.identity import Principal
from telemetry.supervision import OnFailure, contained, uncounted

log = structlog.get_logger(__name__)

_UNFINISHED = (
    "답변을 끝까지 드리지 못했습니다. 다시 질문해 주세요. This answer could not be finished: please ask again."
)
_NOT_LOGGED = Notice(
    code=NoticeCode.DEGRADED,
    text="연결이 끊기면 이 답변을 이어서 볼 수 없습니다. If the connection drops, this answer cannot be resumed.",
)
TakeoverReason = Literal["reader", "cancel", "orphan"]  # a reader here, a cancel here, or the grace has passed


class AnswerSettings(BaseModel, frozen=True):
    """When an answer without readers or without its process ends, and the bounds of its readers."""

    grace: float = Field(
        10.0,
        description="seconds: An answer without readers is abandoned after this time, also if its process has died.",
    )
    most_unlogged: ClassVar[int] = 1000  # answers: the most that have ended without a complete log and stay in memory
    # seconds: the interval of the lease renewals, after which the writer notices a cancel on another replica
    heartbeat: ClassVar[float] = 0.25
    # seconds: how long a reader of another replica's answer waits for Redis before it gets an `error`
    patience: ClassVar[float] = 10.0
    readers_of_customer: ClassVar[int] = 200  # readers: the most open streams of one customer in a process; then 429


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerParts:
    """The parts that writers, takeover and readers share; answers run in `tasks`."""

    log: AnswerLog
    tasks: TaskGroup
    settings: AnswerSettings
    deferred: DeferredWrites
    on_failure: OnFailure = uncounted
    on_taken: Callable[[TakeoverReason], None] = lambda _: None
    handoff_text: Callable[[str], str] = lambda _: ""
    """Returns, for a tenant, the sentence in each language about how to reach a person of its bank."""


Work = Callable[[LiveAnswer], Awaitable[None]]  # produces the events of an answer


class Writers:
    """Starts, finds, ends and hands over the answers of this process."""

    def __init__(self, parts: AnswerParts) -> None:
        self.draining = False
        self.handed_over = False
        self.readers: Counter[AnswerId] = Counter()
        """Connections of this process per answer, including answers that other replicas write."""
        self._parts = parts
        self._log = parts.log
        self._running: dict[AnswerId, LiveAnswer] = {}
        self._unlogged: OrderedDict[AnswerId, LiveAnswer] = OrderedDict()  # ended answers with incomplete logs
        self._accepting = 0  # questions in an `accepting` block
        self._changed = anyio.Event()

    def __contains__(self, answer_id: AnswerId) -> bool:
        """Return whether this process holds an answer: it writes the answer, or has yet to log its end."""
        return answer_id in self._running or answer_id in self._unlogged

    @property
    def active(self) -> int:
        """The number of answers that this process writes."""
        return len(self._running)

    @contextmanager
    def accepting(self) -> Iterator[None]:
        """Make `drained` wait until the block and the answer that it starts have ended.

        Raises:
            Draining: this process ends soon.
        """
        if self.draining:
            raise Draining(retry_after=1)
        self._accepting += 1
        try:
            yield
        finally:
            self._accepting -= 1
            self._wake()

    def find(self, who: Principal, answer_id: AnswerId) -> LiveAnswer | None:
        """Return the answer if this process holds it, else None.

        Raises:
            NotFound: the answer belongs to another customer.
        """
        live = self._running.get(answer_id) or self._unlogged.get(answer_id)
        if live is None:
            return None
        if live.who.customer_id != who.customer_id:
            raise NotFound("answer not found")
        return None if live.stage == "elsewhere" else live

    async def start(self, live: LiveAnswer, work: Work, opening: LogOpening) -> None:
        """Open the answer's log and run `work` in the application's task group.

        While Redis is unavailable, the answer starts without a log, which is written when Redis is back.

        Raises:
            Draining: this process has handed its answers over, and ends.
        """
        if self.handed_over:
            raise Draining(retry_after=1)
        live.log_opening = opening
        try:
            await self._log.open(live.who, live.answer_id, opening, epoch=live.epoch)
        except StoreUnavailable:
            live.update_log_state("behind")
        self.run(live, work)

    def run(self, live: LiveAnswer, work: Work) -> None:
        """Run the work of an answer, and write its events."""
        self._running[live.answer_id] = live
        if not self.readers[live.answer_id]:
            live.cancel_if_unread_after(self._parts.settings.grace)
        if self.handed_over:  # while the log was being opened: another replica takes over when the lease lapses
            live.stop_writing()
        self._parts.tasks.start_soon(self._work, live, work)
        self._parts.tasks.start_soon(self._write, live)

    async def _work(self, live: LiveAnswer, work: Work) -> None:
        """Run the work of an answer; emit an error as the last event if the work has not emitted one."""
        with live.scope, contained("answer", self._parts.on_failure):
            await work(live)
        if live.is_written_here:
            live.end_with(self._unfinished(live))

    def _unfinished(self, live: LiveAnswer) -> Failed:
        text = f"{_UNFINISHED} {self._parts.handoff_text(live.who.tenant)}".strip()
        return msgspec.structs.replace(failed(ChatError(), handoff=text), retryable=True)

    async def _write(self, live: LiveAnswer) -> None:
        """Write the events of an answer until it ends; if its log is `behind` then, defer the missing appends."""
        try:
            with contained("writer", self._parts.on_failure):
                await self._log_and_publish(live)
            if live.is_written_here:
                live.fail(self._unfinished(live))
        finally:
            if live.is_written_here:  # this task is cancelled: end the wait of `confirm_ownership`, which is shielded
                live.stop_writing()
        del self._running[live.answer_id]
        log_end = DeferredWrite("log", partial(self._log_end, live), on_lost=partial(self._drop, live))
        if live.must_log:
            self._keep(live)
            self._parts.deferred.defer(log_end)
        elif live.ended and live.log_state == "whole":
            self._parts.deferred.remember(log_end)
        self._wake()

    async def _log_and_publish(self, live: LiveAnswer) -> None:
        """Log and then publish events, until the answer has ended or another replica writes it."""
        while live.is_written_here:
            batch = await live.next_batch()
            pending_count = len(batch)
            if live.log_state != "deleted" and live.is_written_here:
                await self.append(live, batch)
            if not live.is_written_here:
                return
            if live.log_state == "behind" and _lacks_notice([*live.entries, *batch]):
                log.warning("event_log_write_failed", answer_id=live.answer_id)
                # After the batch: Redis may have executed the append, so that the log already has the batch's numbers.
                batch.append(entry_of(len(live.entries) + pending_count + 1, _NOT_LOGGED))
            live.publish(batch, pending_count=pending_count)

    async def append(self, live: LiveAnswer, batch: Sequence[LogEntry] = ()) -> None:
        """Append all that the log lacks: everything if Redis has lost the log. The next append repeats a failed one."""
        try:
            appended, standing = await self._append_once(live, batch)
            if standing is WriterStanding.BEHIND:
                self.apply_standing(live, standing)  # makes all entries unlogged
                if await self._log.open(live.who, live.answer_id, live.log_opening, epoch=live.epoch):
                    appended, standing = await self._append_once(live, batch)
                else:
                    standing = WriterStanding.REPLACED
        except StoreUnavailable:
            live.update_log_state("behind")
            return
        if standing in (WriterStanding.OWNED, WriterStanding.CANCELLED):
            live.mark_appended(appended)
        self.apply_standing(live, standing)

    async def _append_once(self, live: LiveAnswer, batch: Sequence[LogEntry]) -> tuple[LogAppend, WriterStanding]:
        append = live.missing_append(batch)
        return append, await self._log.append(live.who.tenant, live.answer_id, append, epoch=live.epoch)

    def apply_standing(self, live: LiveAnswer, standing: WriterStanding) -> None:
        """Stop, cancel or log an answer of this process, as the `standing` of its writer requires."""
        match standing:
            case WriterStanding.REPLACED:
                log.warning("writer_replaced", answer_id=live.answer_id)
                live.stop_writing()
            case WriterStanding.CANCELLED:
                live.scope.cancel()
            case WriterStanding.DELETED:
                live.update_log_state("deleted")
                live.scope.cancel()
            case WriterStanding.BEHIND:
                if live.logged_count:  # otherwise it started while Redis was unavailable, and never had a log
                    log.warning("event_log_lost", answer_id=live.answer_id)
                live.mark_log_lost()
            case WriterStanding.READ_ELSEWHERE if not self.readers[live.answer_id]:
                live.cancel_if_unread_after(self._parts.settings.grace)

    # --- ended answers that are not logged ---------------------------------------------------------------------------

    def _keep(self, live: LiveAnswer) -> None:
        """Keep an ended answer in memory for readers until its log is whole; drop the oldest above `most_unlogged`."""
        self._unlogged[live.answer_id] = live
        while len(self._unlogged) > self._parts.settings.most_unlogged:
            self._unlogged.popitem(last=False)

    def _drop(self, live: LiveAnswer) -> None:
        """Remove an ended answer from memory."""
        self._unlogged.pop(live.answer_id, None)

    async def _log_end(self, live: LiveAnswer) -> None:
        """Log the missing events of an ended answer.

        A call with the state `whole` is a repetition after Redis lost data (`DeferredWrites`): it logs all events.

        Raises:
            StoreUnavailable: the log still lacks events; `DeferredWrites` calls again.
        """
        if live.log_state == "whole":
            live.mark_log_lost()
            self._keep(live)
        if live.must_log:
            await self.append(live)
        if live.must_log:
            raise StoreUnavailable
        self._drop(live)

    # --- leases ------------------------------------------------------------------------------------------------------

    async def renew_leases(self) -> None:
        """Renew the leases of all answers that this process writes or still has to log; append missing events.

        Raises:
            StoreUnavailable: Redis is unavailable.
        """
        running = [live for live in self._running.values() if live.log_state != "deleted" and live.stage != "elsewhere"]
        for live in running:
            if live.must_log:
                live.request_append()
        ended = [live for live in self._unlogged.values() if live.must_log]
        leases = {live.answer_id: (live.who.tenant, live.epoch) for live in (*running, *ended)}
        if not leases:
            return
        for answer_id, standing in (await self._log.renew(leases)).items():
            if answer_id in self._running:
                self.apply_standing(self._running[answer_id], standing)

    # --- readers come and leave --------------------------------------------------------------------------------------

    def reader_came(self, answer_id: AnswerId) -> None:
        """Count a reader of an answer, which another replica may write; stop the answer's unread timer."""
        self.readers[answer_id] += 1
        if answer_id in self._running:
            self._running[answer_id].stop_unread_timer()

    def reader_left(self, answer_id: AnswerId, *, resumable: bool) -> None:
        """Cancel an answer whose last reader has left: after the grace, or at once if that reader cannot resume."""
        self.readers[answer_id] -= 1
        if self.readers[answer_id]:
            return
        del self.readers[answer_id]
        if answer_id in self._running:
            grace = self._parts.settings.grace if resumable else 0
            self._running[answer_id].cancel_if_unread_after(grace)

    # --- the end of the process --------------------------------------------------------------------------------------

    def _wake(self) -> None:
        changed = self._changed
        self._changed = anyio.Event()
        changed.set()

    def begin_draining(self) -> None:
        """Reject further questions and take no answer over: this process ends soon."""
        self.draining = True

    async def drained(self) -> None:
        """Wait until no question is being accepted, no answer is being written and no write is deferred."""
        while self._accepting or self._running:
            await self._changed.wait()
        await self._parts.deferred.drained()

    async def hand_over(self) -> None:
        """Stop writing each answer whose log is whole, and end its lease; cancel the other answers."""
        self.handed_over = True
        leases: dict[AnswerId, tuple[str, int]] = {}
        for live in self._running.values():
            if live.stage == "writing" and live.log_state == "whole":
                leases[live.answer_id] = live.who.tenant, live.epoch
                live.stop_writing()
            elif live.stage == "writing":
                live.scope.cancel()
        while self._running:  # an append in flight would renew a lease that has been ended
            await self._changed.wait()
        if leases:
            await self._log.end_leases(leases)


def _lacks_notice(entries: Sequence[LogEntry]) -> bool:
    """Return whether the answer continues and has not yet shown the notice that it is not logged."""
    return not any(entry.event.ends or entry.event == _NOT_LOGGED for entry in entries)
