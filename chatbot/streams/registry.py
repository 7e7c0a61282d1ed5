"""The answers of this process: owned by the application's task group, only read by connections.

An event is appended to the answer log before any connection sees it (group commit: while one append is in flight the
next ones gather). With Redis away the stream goes on from this process's memory, with a notice, and cannot be resumed
elsewhere. An answer that nobody reads is abandoned after a grace: its scope is cancelled, which closes the model's
socket, and it then ends like any cancelled one.

Every writer holds a lease, renewed by a heartbeat that also hears of cancels and of readers on other replicas. Who
reads an answer whose writer's lease has lapsed takes it over and goes on with it here; what nobody asks for any more
is ended by a sweep. `docs/decisions/0005-leases-and-epochs.md` says what a successor may assume.
"""

from collections import Counter, OrderedDict, defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager, suppress
from dataclasses import replace
from typing import Literal

import anyio
import structlog
from anyio.abc import TaskGroup
from pydantic import BaseModel

from chatbot.errors import Draining, ForeignEventId, LogLost, NotFound, StoreUnavailable
from chatbot.events import LAST, Event, Notice, NoticeCode, PassageRef
from chatbot.streams.live import LiveAnswer
from chatbot.streams.log import AnswerId, AnswerLog, LogAppend, LogEntry, TakenOver, WriterReplaced, WriterStanding
from knowledge.identity import Principal

log = structlog.get_logger(__name__)

_NOT_RESUMABLE = "연결이 끊기면 이 답변은 이어볼 수 없습니다. If the connection drops, this answer cannot be resumed."


class AnswerRegistrySettings(BaseModel, frozen=True):
    """Seconds until an unread stream is abandoned, and how many unlogged answers stay in memory after their end.

    Also in seconds: between two heartbeats (a cancel on another replica is heard within one), between two looks for
    answers whose writer is dead, and how long such a one waits for its customer before it is ended.
    """

    grace: float = 10.0
    kept: int = 200
    heartbeat: float = 0.25
    sweep_every: float = 5.0
    orphaned_after: float = 10.0


Work = Callable[[LiveAnswer], Awaitable[None]]
Resume = Callable[[LiveAnswer, TakenOver], Awaitable[None]]
"""Goes on with an answer that was taken over; where it is marked cancelled, only ends it."""
Why = Literal["reader", "cancel", "orphan"]


def _unheard(_: Why) -> None:
    """Nobody counts."""


class AnswerRegistry:
    """Starts answers, finds them, cancels them, takes over those of dead replicas, hands over its own."""

    def __init__(
        self,
        answer_log: AnswerLog,
        tasks: TaskGroup,
        settings: AnswerRegistrySettings,
        *,
        on_taken: Callable[[Why], None] = _unheard,
    ) -> None:
        self._log = answer_log
        self._tasks = tasks
        self._settings = settings
        self._on_taken = on_taken
        self._running: dict[AnswerId, LiveAnswer] = {}
        self._kept: OrderedDict[AnswerId, LiveAnswer] = OrderedDict()
        self._reading: Counter[AnswerId] = Counter()
        self._resume: Resume | None = None
        self._leaving = False
        self._left = False
        self._idle = anyio.Event()
        self._idle.set()

    @property
    def active(self) -> int:
        """How many answers run here now."""
        return len(self._running)

    async def start(
        self, running: LiveAnswer, work: Work, *, passages: Sequence[PassageRef], frame: bytes = b""
    ) -> None:
        """Open the answer's log and run `work` in the application's task group; `frame` is what a successor needs."""
        try:
            await self._log.open(
                running.who,
                running.answer_id,
                conversation_id=running.conversation_id,
                passages=passages,
                frame=frame,
            )
        except StoreUnavailable:
            running.opened = running.durable = False
        self._begin(running, work)

    def _begin(self, running: LiveAnswer, work: Work) -> None:
        if not self._running:
            self._idle = anyio.Event()
        self._running[running.answer_id] = running
        if not self._reading[running.answer_id]:
            running.abandon_after(self._settings.grace)
        self._tasks.start_soon(self._run, running, work)
        self._tasks.start_soon(self._write, running)

    async def _run(self, running: LiveAnswer, work: Work) -> None:
        with running.scope:
            await work(running)

    async def _write(self, running: LiveAnswer) -> None:
        while not (running.ended or running.gone):
            batch, written = await running.gathered()
            if running.opened:
                await self._append(running, written)
            if running.gone:
                break
            if not (running.durable or running.warned):
                batch = _warned(running, batch)
            running.publish(batch)
        running.attended()
        del self._running[running.answer_id]
        if not (running.durable or running.gone or running.forgotten):
            self._keep(running)
        if not self._running:
            self._idle.set()

    async def _append(self, running: LiveAnswer, written: LogAppend) -> None:
        try:
            standing = await self._log.append(running.who.tenant, running.answer_id, written, epoch=running.epoch)
        except StoreUnavailable:
            running.durable = False  # what is missing goes with the next append
        except WriterReplaced:
            self._heed(running, WriterStanding.REPLACED)
        else:
            if standing is not WriterStanding.FORGOTTEN:
                running.written(written)
            self._heed(running, standing)

    def _heed(self, running: LiveAnswer, standing: WriterStanding) -> None:
        """Do as the log says."""
        match standing:
            case WriterStanding.REPLACED:
                log.warning("writer_replaced", answer_id=running.answer_id)
                running.leave()
            case WriterStanding.CANCELLED:
                running.scope.cancel()
            case WriterStanding.FORGOTTEN:
                running.opened = running.durable = False
                running.warned = running.forgotten = True  # its customer has deleted it and need not be told
                running.scope.cancel()
            case WriterStanding.READ_ELSEWHERE if not self._reading[running.answer_id]:
                running.abandon_after(self._settings.grace)

    def _keep(self, running: LiveAnswer) -> None:
        self._kept[running.answer_id] = running
        while len(self._kept) > self._settings.kept:
            self._kept.popitem(last=False)

    # --- readers -----------------------------------------------------------------------------------------------------

    def find(self, who: Principal, answer_id: AnswerId) -> LiveAnswer | None:
        """Return the answer if this process holds it and it is the caller's.

        Raises:
            NotFound: it is somebody else's.
        """
        running = self._running.get(answer_id) or self._kept.get(answer_id)
        if running is not None and (running.who.tenant, running.who.sub) != (who.tenant, who.sub):
            raise NotFound("there is no such answer")
        return None if running is None or running.gone else running

    async def reach(self, who: Principal, answer_id: AnswerId, last_event_id: str | None) -> tuple[int, bool]:
        """Return the number after which to go on, and whether nothing is left to send.

        Raises:
            NotFound: no such answer, or somebody else's.
            ForeignEventId: `last_event_id` is another answer's.
            LogLost: it lies beyond the log.
            Draining: this process ends soon and does not run the answer.
        """
        after = _number_of(last_event_id, answer_id)
        running = self.find(who, answer_id)
        if running is not None:
            length, ended = len(running.published), running.ended
        elif self._leaving:
            raise Draining(retry_after=1)
        else:
            length, ended = await self._log.length(who, answer_id)
        if after > length:
            raise LogLost(f"the log ends at event {length}")
        return after, ended and after == length

    async def follow(self, who: Principal, answer_id: AnswerId, *, after: int) -> AsyncGenerator[LogEntry]:
        """Yield the entries after number `after`: from memory while the answer runs here, else from the log.

        An answer whose writer is dead is taken over. Ends without a last event only where this process is about to
        end and has handed the answer over: the customer goes on elsewhere.
        """
        while not self._left:
            running = self.find(who, answer_id)
            entries = self._logged(who, answer_id, after) if running is None else running.follow(after)
            async with aclosing(entries):
                async for entry in entries:
                    after = entry.n
                    yield entry
                    if isinstance(entry.event, LAST):
                        return
            if running is not None and running.ended:
                return

    async def _logged(self, who: Principal, answer_id: AnswerId, after: int) -> AsyncGenerator[LogEntry]:
        """Yield what the log has or gets until its writer's lease ends, then take the answer over if that has lapsed.

        Raises:
            LogLost: the answer has ended, and not with a last event after `after`.
        """
        progress = await self._log.touch(who, answer_id, "read")
        left = progress.lease_left
        if left is not None and left <= 0 and await self._take_over(who.tenant, answer_id, "reader"):
            return
        entries = await self._log.read(who.tenant, answer_id, after=after, wait=left if left and left > 0 else 0.1)
        for entry in entries:
            yield entry
        if left is None and not entries:
            raise LogLost(f"the log ends at event {progress.events}")

    @contextmanager
    def read(self, answer_id: AnswerId, *, resumable: bool = True) -> Iterator[None]:
        """Count a connection that reads the answer; one that cannot resume is given no grace."""
        self._reading[answer_id] += 1
        if (running := self._running.get(answer_id)) is not None:
            running.attended()
        try:
            yield
        finally:
            self._reading[answer_id] -= 1
            if self._reading[answer_id] == 0:
                del self._reading[answer_id]
                if (running := self._running.get(answer_id)) is not None:
                    running.abandon_after(self._settings.grace if resumable else 0)

    async def cancel(self, who: Principal, answer_id: AnswerId) -> bool:
        """Stop the answer wherever it runs; return whether it had not ended yet.

        Raises:
            NotFound: no such answer, or somebody else's.
            StoreUnavailable: it does not run here and Redis cannot be asked.
        """
        running = self.find(who, answer_id)
        if running is not None:
            running.scope.cancel()
            return not running.ended
        left = (await self._log.touch(who, answer_id, "cancelled")).lease_left
        if left is not None:
            self._tasks.start_soon(self._end_if_lapsed, who.tenant, answer_id, left)
        return left is not None

    # --- other replicas ----------------------------------------------------------------------------------------------

    async def look_after(self, resume: Resume) -> None:
        """Keep the leases of this process's answers, and end those of dead replicas that nobody asks for; for ever."""
        self._resume = resume
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._keep_leases)
            tasks.start_soon(self._end_orphans)

    async def _keep_leases(self) -> None:
        while True:
            await anyio.sleep(self._settings.heartbeat)
            by_tenant: defaultdict[str, dict[AnswerId, int]] = defaultdict(dict)
            for running in self._running.values():
                if running.opened and not running.gone and not self._heard(running):
                    by_tenant[running.who.tenant][running.answer_id] = running.epoch
            for tenant, epochs in by_tenant.items():
                with suppress(StoreUnavailable):
                    for answer_id, standing in (await self._log.renew(tenant, epochs)).items():
                        if (running_now := self._running.get(answer_id)) is not None and not running_now.gone:
                            self._heed(running_now, standing)

    def _heard(self, running: LiveAnswer) -> bool:
        """Whether an append has just said and heard what a heartbeat would, but for readers elsewhere."""
        return bool(self._reading[running.answer_id]) and running.just_written(self._settings.heartbeat)

    async def _end_orphans(self) -> None:
        while True:
            await anyio.sleep(self._settings.sweep_every)
            with suppress(StoreUnavailable):
                for tenant, answer_id in await self._log.orphans(lapsed_for=self._settings.orphaned_after):
                    await self._take_over(tenant, answer_id, "orphan")

    async def _end_if_lapsed(self, tenant: str, answer_id: AnswerId, left: float) -> None:
        """End an answer that its customer has cancelled, should its writer be dead."""
        await anyio.sleep(max(0.0, left))
        with suppress(StoreUnavailable):
            await self._take_over(tenant, answer_id, "cancel")

    async def _take_over(self, tenant: str, answer_id: AnswerId, why: Why) -> bool:
        """Go on with an answer whose writer's lease has lapsed; return whether it runs here now."""
        resume = self._resume
        if resume is None or self._leaving:
            return False
        with anyio.CancelScope(shield=True):  # what was taken is run
            found = await self._log.take(tenant, answer_id)
            if found is None:
                return False
            log.warning("answer_taken_over", answer_id=answer_id, why=why, epoch=found.epoch)
            self._on_taken(why)
            running = LiveAnswer(
                answer_id,
                Principal(tenant=tenant, sub=found.sub, roles=frozenset(), groups=frozenset()),
                conversation_id=found.conversation_id,
                epoch=found.epoch,
                logged=found.events,
                token_ids=found.token_ids,
            )
            taken = replace(found, cancelled=found.cancelled or why == "orphan")
            self._begin(running, lambda running: resume(running, taken))
        return True

    # --- the end of the process --------------------------------------------------------------------------------------

    def take_no_more(self) -> None:
        """Take nothing over any more: this process ends soon."""
        self._leaving = True

    async def drained(self) -> None:
        """Wait until no answer runs here."""
        await self._idle.wait()

    async def hand_over(self) -> None:
        """Stop writing every answer and let another replica go on at once; one that only this process has is cancelled.

        Raises:
            StoreUnavailable: the leases could not be given up; they lapse by themselves.
        """
        self._left = True
        epochs: defaultdict[str, dict[AnswerId, int]] = defaultdict(dict)
        for running in self._running.values():
            if running.finishing:
                continue
            if running.opened and running.durable:
                epochs[running.who.tenant][running.answer_id] = running.epoch
                running.leave()
            else:
                running.scope.cancel()
        await self.drained()  # an append that is still in flight would renew the lease
        for tenant, answers in epochs.items():
            await self._log.give_up(tenant, answers)


def _warned(running: LiveAnswer, batch: list[Event]) -> list[Event]:
    running.warned = True
    log.warning("answer_not_logged", answer_id=running.answer_id)
    at = 0 if running.published else 1  # `accepted` stays the first event
    return [*batch[:at], Notice(code=NoticeCode.DEGRADED, text=_NOT_RESUMABLE), *batch[at:]]


def _number_of(last_event_id: str | None, answer_id: AnswerId) -> int:
    if not last_event_id:
        return 0
    owner, _, n = last_event_id.rpartition(".")
    if owner != answer_id or not n.isdecimal() or len(n) > 9:
        raise ForeignEventId
    return int(n)
