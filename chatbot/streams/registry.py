"""The answers of this process: owned by the application's task group, only read by connections.

An event is appended to the answer log before any connection sees it (group commit: events put while an append is in
flight go with the next one). While Redis is away the stream continues from this process's memory, with a notice, and
cannot be resumed elsewhere. An answer without readers is abandoned after a grace period: its scope is cancelled, which
closes the model's socket, and it then ends like any cancelled one.

Every writer holds a lease, renewed by a heartbeat whose reply also reports cancels and readers on other replicas. A
reader of an answer whose lease has lapsed takes the answer over and continues it in this process; a sweep ends those
without readers. `docs/decisions/0005-leases-and-epochs.md` says what a successor may assume.
"""

import math
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Literal

import anyio
import msgspec
import structlog
from anyio.abc import TaskGroup
from pydantic import BaseModel, Field, PositiveInt

from chatbot.deferred import StoreMemory, WriteKind
from chatbot.errors import (
    ChatError,
    Draining,
    ForeignEventId,
    LogLost,
    NotFound,
    Overloaded,
    StoreUnavailable,
    failed,
)
from chatbot.events import Failed, Notice, NoticeCode, PassageRef
from chatbot.reads import too_much
from chatbot.streams.elsewhere import ReadsElsewhere
from chatbot.streams.live import LiveAnswer
from chatbot.streams.log import (
    AnswerId,
    AnswerLog,
    LogEntry,
    LogOpening,
    TakenOver,
    WriterReplaced,
    WriterStanding,
    entry_of,
)
from knowledge.identity import Principal
from telemetry.supervision import OnFailure, contained, supervise, uncounted

log = structlog.get_logger(__name__)

_UNFINISHED = (
    "답변을 끝까지 만들지 못했습니다. 다시 질문해 주세요. This answer could not be finished: please ask again."
)
_CUT_OFF = (
    "지금은 이 답변을 이어서 보여 드릴 수 없습니다. 잠시 뒤에 다시 열어 주세요. "
    "This answer cannot be shown further right now: please open it again in a moment."
)
_RETRY_READERS_SECONDS = 5
_TERMS = 2
"""For how many terms of a lease Redis must have been back before a lapsed one counts: a writer may need two probes."""
_FLUSHES = 16
"""How many ends of answers are brought into their logs at once: a thousand would keep the running ones waiting."""
_NOT_LOGGED = "연결이 끊기면 이 답변은 이어볼 수 없습니다. If the connection drops, this answer cannot be resumed."


class AnswerRegistrySettings(BaseModel, frozen=True):
    """When an answer without readers or without its process ends."""

    grace: float = Field(10.0, description="seconds: until an answer that nobody reads is abandoned")
    kept: int = Field(1000, description="answers: how many that have ended without a log stay in memory")
    heartbeat: float = Field(
        0.25,
        description=(
            "seconds: between two renewals of the leases, so at most until a cancel on another replica is noticed"
        ),
    )
    again: float = Field(
        10.0,
        description=(
            "seconds: answers that ended so lately are logged again where Redis has forgotten its last moments"
        ),
    )
    sweep_every: float = Field(5.0, description="seconds: between two sweeps for answers whose process died")
    orphaned_after: float = Field(
        10.0, description="seconds: until such an answer, which nobody reads, is ended by another replica"
    )
    patience: float = Field(
        10.0,
        description=(
            "seconds: how long those who read an answer that another replica writes wait for Redis before an `error`"
        ),
    )
    readers_of_answer: PositiveInt = Field(32, description="readers: open streams of one answer in a process; then 429")
    readers_of_customer: PositiveInt = Field(200, description="readers: open streams of one customer; then 429")
    readers: PositiveInt = Field(10_000, description="readers: open streams of a process; then 503")
    followed: PositiveInt = Field(
        1000,
        description=(
            "answers: that other replicas write and this process reads at once, each over one of "
            "`REDIS__MAX_READERS` connections; then 503"
        ),
    )


Work = Callable[[LiveAnswer], Awaitable[None]]
Resume = Callable[[LiveAnswer, TakenOver], Awaitable[None]]
"""Continues an answer that was taken over, or ends it where it is marked cancelled."""
TakeoverReason = Literal["reader", "cancel", "orphan"]


def _uncounted(_: TakeoverReason) -> None:
    """Count nothing."""


class AnswerRegistry:
    """Starts, finds, follows and cancels answers; takes over those of dead replicas, hands over its own."""

    def __init__(  # noqa: PLR0913  four are told what happens
        self,
        answer_log: AnswerLog,
        tasks: TaskGroup,
        settings: AnswerRegistrySettings,
        *,
        on_taken: Callable[[TakeoverReason], None] = _uncounted,
        on_lost: Callable[[WriteKind], None] = lambda _: None,
        on_failure: OnFailure = uncounted,
        on_store_seen: Callable[[StoreMemory], None] = lambda _: None,
        person: Callable[[str], str] = lambda _: "",
    ) -> None:
        """`person` returns the sentence that names the person of a tenant's bank to turn to, in each language.

        `on_store_seen` is called each heartbeat that Redis answers, with whether it has forgotten its last moments.
        """
        self._log = answer_log
        self._tasks = tasks
        self._settings = settings
        self._on_taken = on_taken
        self._on_lost = on_lost
        self._on_failure = on_failure
        self._on_store_seen = on_store_seen
        self._ended: deque[tuple[float, LiveAnswer]] = deque(maxlen=settings.kept)
        self._flushing = anyio.Semaphore(_FLUSHES)
        self._live: dict[AnswerId, LiveAnswer] = {}
        self._unlogged: OrderedDict[AnswerId, LiveAnswer] = OrderedDict()
        self._readers: Counter[AnswerId] = Counter()
        self._readers_of: Counter[tuple[str, str]] = Counter()
        self._person = person
        self._elsewhere = ReadsElsewhere(
            answer_log,
            tasks,
            patience=settings.patience,
            take_over=partial(self._take_over, reason="reader"),
            on_failure=on_failure,
        )
        self._resume: Resume | None = None
        self._draining = False
        self._handed_over = False
        self._no_renewal_at = -math.inf
        self._idle = anyio.Event()
        self._idle.set()
        self._opening = 0
        self._opened = anyio.Event()

    @property
    def active(self) -> int:
        """How many answers this process writes."""
        return len(self._live)

    @contextmanager
    def opening(self) -> Iterator[None]:
        """Make `drained` wait until the block and its answer end.

        Raises:
            Draining: this process ends soon.
        """
        if self._draining:
            raise Draining(retry_after=1)
        self._opening += 1
        try:
            yield
        finally:
            self._opening -= 1
            self._opened.set()
            self._opened = anyio.Event()

    async def start(
        self, live: LiveAnswer, work: Work, *, passages: Sequence[PassageRef], checkpoint: bytes = b""
    ) -> None:
        """Open the answer's log and run `work` in the application's task group; a successor reads `checkpoint`.

        While Redis is away the answer starts without a log, and gets it when Redis is back.

        Raises:
            Draining: this process has handed its answers over, and ends.
        """
        if self._handed_over:
            raise Draining(retry_after=1)
        live.opening = LogOpening(passages=passages, checkpoint=checkpoint)
        try:
            await self._open(live)
        except StoreUnavailable:
            live.fully_logged = False
        self._start_tasks(live, work)

    async def _open(self, live: LiveAnswer) -> None:
        """Make the log of an answer, where Redis has none.

        Raises:
            WriterReplaced: another replica has taken the answer over.
            StoreUnavailable: Redis cannot be asked.
        """
        if (opening := live.opening) is not None:
            await self._log.open(
                live.who,
                live.answer_id,
                conversation_id=live.conversation_id,
                passages=opening.passages,
                checkpoint=opening.checkpoint,
                epoch=live.epoch,
            )

    def _start_tasks(self, live: LiveAnswer, work: Work) -> None:
        if self._idle.is_set():
            self._idle = anyio.Event()
        self._live[live.answer_id] = live
        if not self._readers[live.answer_id]:
            live.abandon_after(self._settings.grace)
        if self._handed_over:  # meanwhile; the lease of its log lapses
            live.stop_writing()
        self._tasks.start_soon(self._run, live, work)
        self._tasks.start_soon(self._write, live)

    def _unfinished(self, live: LiveAnswer) -> Failed:
        text = f"{_UNFINISHED} {self._person(live.who.tenant)}".strip()
        return msgspec.structs.replace(failed(ChatError(), handoff=text), retryable=True)

    def _cut_off(self, who: Principal) -> str:
        return f"{_CUT_OFF} {self._person(who.tenant)}".strip()

    async def _run(self, live: LiveAnswer, work: Work) -> None:
        """Run the work of an answer; whatever happens in it, the answer gets a last event."""
        with live.scope, contained("answer", self._on_failure):
            await work(live)
        live.worked = True
        if not live.written_elsewhere:
            live.end_with(self._unfinished(live))

    async def _write(self, live: LiveAnswer) -> None:
        try:
            while not (live.ended or live.written_elsewhere):
                with contained("writer", self._on_failure):
                    await self._log_and_publish(live)
                    break
                self._break(live)
        finally:
            if not live.ended:  # cancelled with the process: who waits for the log, shielded, must not wait for ever
                live.stop_writing()
        del self._live[live.answer_id]
        if live.owes_log:
            if live.loggable:
                self._flush_later(live)
            else:
                self._keep_in_memory(live)
        elif live.fully_logged:
            self._ended.append((anyio.current_time(), live))
        self._set_idle()

    def _flush_later(self, live: LiveAnswer) -> None:
        if self._idle.is_set():
            self._idle = anyio.Event()
        live.unflushed = True
        self._keep_in_memory(live)
        self._tasks.start_soon(self._flush, live)

    async def _flush(self, live: LiveAnswer) -> None:
        """Bring the end of an answer into its log once Redis takes it; until then this process keeps its lease."""
        while live.unflushed and not self._handed_over:
            await anyio.sleep(self._settings.heartbeat)
            with contained("flush", self._on_failure):
                if live.owes_log:
                    async with self._flushing:
                        await self._append(live)
                if not live.owes_log:
                    self._drop_from_memory(live)
                    if live.fully_logged:
                        self._ended.append((anyio.current_time(), live))
        with contained("flush", self._on_failure):
            if live.unflushed:  # handed over, and this process ends
                self._drop_from_memory(live)
            self._set_idle()

    def _set_idle(self) -> None:
        """Tell who waits for it that this process writes no answer, and that no log lacks the end of one."""
        if not (self._live or any(live.unflushed for live in self._unlogged.values())):
            self._idle.set()

    async def _log_and_publish(self, live: LiveAnswer) -> None:
        """Log what is put, and then publish it, until the answer has ended or is written elsewhere."""
        while not live.ended:
            batch = await live.next_batch()
            if live.written_elsewhere:
                return
            if live.loggable:
                await self._append(live, batch)
            if live.written_elsewhere:
                return
            if not (live.fully_logged or live.warned or any(entry.event.ends for entry in batch)):
                batch = _with_warning(live, batch)
            live.publish(batch)

    def _break(self, live: LiveAnswer) -> None:
        """End an answer that cannot be written as it is: without what could not be written, in an error."""
        if live.broken:  # nor can its end be
            live.give_up_log()
            live.publish([entry_of(len(live.entries) + 1, self._unfinished(live))])
        live.drop_unpublished()
        live.scope.cancel()
        if live.worked:
            live.end_with(self._unfinished(live))

    async def _append(self, live: LiveAnswer, batch: Sequence[LogEntry] = ()) -> None:
        """Append what the log lacks, everything where Redis has lost the log; what fails goes with the next append."""
        try:
            unlogged = live.unlogged(batch)
            standing = await self._log.append(live.who.tenant, live.answer_id, unlogged, epoch=live.epoch)
            if standing is WriterStanding.BEHIND:
                self._apply_standing(live, standing)
                await self._open(live)
                unlogged = live.unlogged(batch)
                standing = await self._log.append(live.who.tenant, live.answer_id, unlogged, epoch=live.epoch)
        except StoreUnavailable:
            live.fully_logged = False
        except WriterReplaced:
            self._apply_standing(live, WriterStanding.REPLACED)
        else:
            if standing not in (WriterStanding.DELETED, WriterStanding.BEHIND):
                live.mark_appended(unlogged)
            if standing is not WriterStanding.OWNED:
                self._apply_standing(live, standing)

    def _apply_standing(self, live: LiveAnswer, standing: WriterStanding) -> None:
        match standing:
            case WriterStanding.REPLACED:
                log.warning("writer_replaced", answer_id=live.answer_id)
                live.stop_writing()
            case WriterStanding.CANCELLED:
                live.scope.cancel()
            case WriterStanding.DELETED:
                live.give_up_log()
                live.warned = live.deleted = True  # its customer has deleted it and needs no warning
                live.scope.cancel()
            case WriterStanding.BEHIND:
                if live.logged:  # otherwise it began while Redis was away, and nothing was there to be lost
                    log.warning("log_lost", answer_id=live.answer_id)
                live.log_lost()
            case WriterStanding.READ_ELSEWHERE if not self._readers[live.answer_id]:
                live.abandon_after(self._settings.grace)

    def _keep_in_memory(self, live: LiveAnswer) -> None:
        self._unlogged[live.answer_id] = live
        while len(self._unlogged) > self._settings.kept:
            self._drop_from_memory(next(iter(self._unlogged.values())))

    def _drop_from_memory(self, live: LiveAnswer) -> None:
        """Let readers find the answer in its log; one that is not there yet is ended by the sweep as it is there."""
        self._unlogged.pop(live.answer_id, None)  # gone already where later ones needed its place
        if live.unflushed and not live.fully_logged:
            log.error("write_lost", kind="log", answer_id=live.answer_id)
            self._on_lost("log")
        live.unflushed = False

    # --- readers -----------------------------------------------------------------------------------------------------

    def find(self, who: Principal, answer_id: AnswerId) -> LiveAnswer | None:
        """Return the answer if this process holds it.

        Raises:
            NotFound: it belongs to another customer.
        """
        live = self._live.get(answer_id) or self._unlogged.get(answer_id)
        if live is not None and (live.who.tenant, live.who.sub) != (who.tenant, who.sub):
            raise NotFound("there is no such answer")
        return None if live is None or live.written_elsewhere else live

    async def resume_position(self, who: Principal, answer_id: AnswerId, last_event_id: str | None) -> tuple[int, bool]:
        """Return the number of the last event received, and whether it ended the answer.

        Raises:
            NotFound: no such answer, or another customer's.
            ForeignEventId: `last_event_id` is another answer's.
            LogLost: it lies beyond the log.
            StoreUnavailable: this process does not hold the answer and Redis cannot be asked.
            Draining: this process ends soon and does not run the answer.
        """
        after = _number_of(last_event_id, answer_id)
        live = self.find(who, answer_id)
        if live is not None:
            length, ended = len(live.entries), live.ended
        elif self._draining:
            raise Draining(retry_after=1)
        else:
            length, ended = await self._length(who, answer_id)
        if after > length:
            raise LogLost(f"the log ends at event {length}")
        return after, ended and after == length

    async def _length(self, who: Principal, answer_id: AnswerId) -> tuple[int, bool]:
        """Return how many events a log holds, and whether it has ended.

        Raises:
            NotFound: no such answer, or another customer's.
            StoreUnavailable: Redis cannot be asked, or came back just now and may have forgotten the answer.
        """
        try:
            return await self._log.length(who, answer_id)
        except NotFound:
            if self._log.back_for < _TERMS * self._log.lease_seconds:
                raise StoreUnavailable(retry_after=1) from None
            raise

    async def follow(self, who: Principal, answer_id: AnswerId, *, after: int) -> AsyncGenerator[LogEntry]:
        """Yield the entries after number `after`: from memory while this process writes the answer, else from the log.

        An answer whose writer is dead is taken over. Where it cannot be read to its end an error of number 0 is the
        last entry. Ends without a last event only where this process ends and has handed the answer over: the client
        resumes on another replica.
        """
        error, over = ChatError(), False
        shown = deque[LogEntry]()  # here, and it may be in no log
        with contained("stream", self._on_failure):
            try:
                while not (over or self._handed_over):
                    live, behind = self.find(who, answer_id), after - len(shown)
                    followed = self._elsewhere.follow(who, answer_id, behind) if live is None else live.follow(behind)
                    if shown:
                        followed = self._unseen(who, answer_id, followed, shown)
                    async with aclosing(followed) as entries:
                        async for entry in entries:
                            after = entry.n
                            yield entry
                            if entry.event.ends:
                                return
                    if live is not None:
                        over, shown = live.ended, deque(live.entries[live.logged : after])
            except ChatError as exc:
                error = exc
            else:
                return
        yield entry_of(0, failed(error, handoff=self._cut_off(who)))

    async def _unseen(
        self, who: Principal, answer_id: AnswerId, followed: AsyncGenerator[LogEntry], shown: deque[LogEntry]
    ) -> AsyncGenerator[LogEntry]:
        """Drop from what follows what was shown already, which is read again where the answer goes on.

        Where the successor wrote something else under its numbers, the reader would miss that: an error ends the answer
        for them, and they read it anew.
        """
        async with aclosing(followed) as entries:
            async for entry in entries:
                if not shown:
                    yield entry
                elif entry.event != shown.popleft().event:
                    behind = entry.n + len(shown)
                    log.warning("reader_cut_off", answer_id=answer_id, behind=behind)
                    yield entry_of(behind + 1, failed(LogLost(), handoff=self._cut_off(who)))
                    return

    def check_readers(self, who: Principal, answer_id: AnswerId | None = None) -> None:
        """Refuse one more reader of an answer (None: of one that is not begun yet) where there are too many.

        Raises:
            RateLimited: of the answer, or of this customer.
            Overloaded: of this process, or of answers that other replicas write.
        """
        settings = self._settings
        of_answer = 0 if answer_id is None else self._readers[answer_id]
        if (
            of_answer >= settings.readers_of_answer
            or self._readers_of[who.tenant, who.sub] >= settings.readers_of_customer
        ):
            raise too_much("readers", retry_after=_RETRY_READERS_SECONDS)
        is_elsewhere = answer_id is not None and self.find(who, answer_id) is None and answer_id not in self._elsewhere
        if self._readers.total() >= settings.readers or (is_elsewhere and len(self._elsewhere) >= settings.followed):
            raise Overloaded("too many answers are read here", retry_after=_RETRY_READERS_SECONDS)

    @contextmanager
    def reading(self, who: Principal, answer_id: AnswerId, *, resumable: bool = True) -> Iterator[None]:
        """Count a connection as a reader of the answer; one that cannot resume gives it no grace when it leaves.

        Raises:
            NotFound: the answer belongs to another customer.
            RateLimited, Overloaded: there are too many readers (`check_readers`).
        """
        self.check_readers(who, answer_id)
        customer = who.tenant, who.sub
        self._readers[answer_id] += 1
        self._readers_of[customer] += 1
        if (live := self._live.get(answer_id)) is not None:
            live.cancel_abandonment()
        try:
            yield
        finally:
            self._readers[answer_id] -= 1
            self._readers_of[customer] -= 1
            if self._readers_of[customer] == 0:
                del self._readers_of[customer]
            if self._readers[answer_id] == 0:
                del self._readers[answer_id]
                if (live := self._live.get(answer_id)) is not None:
                    live.abandon_after(self._settings.grace if resumable else 0)

    async def cancel(self, who: Principal, answer_id: AnswerId) -> bool:
        """Stop the answer on whichever replica writes it; return whether it had not ended yet.

        Raises:
            NotFound: no such answer, or another customer's.
            StoreUnavailable: this process does not hold the answer and Redis cannot be asked.
        """
        live = self.find(who, answer_id)
        if live is not None:
            live.scope.cancel()
            return not live.ended
        left = (await self._log.touch(who, answer_id, "cancelled")).lease_left
        if left is not None:
            self._tasks.start_soon(self._end_if_lapsed, who.tenant, answer_id, left)
        return left is not None

    # --- leases and takeover -----------------------------------------------------------------------------------------

    async def maintain_leases(self, resume: Resume) -> None:
        """Renew this process's leases and end the orphans of dead replicas, until cancelled."""
        self._resume = resume
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(supervise, "renewals", self._renew_leases, self._on_failure)
            tasks.start_soon(supervise, "orphans", self._end_orphans, self._on_failure)

    async def _renew_leases(self) -> None:
        while True:
            await self._ask_store()
            by_tenant = self._leases_to_renew()
            for tenant, epochs in by_tenant.items():
                with suppress(StoreUnavailable):
                    for answer_id, standing in (await self._log.renew(tenant, epochs)).items():
                        if (still_live := self._live.get(answer_id)) is not None:
                            self._apply_standing(still_live, standing)
            slept_at = anyio.current_time()
            await anyio.sleep(self._settings.heartbeat)
            if anyio.current_time() - slept_at > self._log.lease_seconds:
                self._no_renewal_at = anyio.current_time()
            self._complete_logs()

    async def _ask_store(self) -> None:
        """Ask Redis whether it forgot its last moments; so this process knows, too, when Redis was away.

        The ends of answers that it may have forgotten are appended again; nothing changes where it has them.
        """
        try:
            memory: StoreMemory = "forgetful" if await self._log.has_forgotten() else "whole"
        except StoreUnavailable:
            self._no_renewal_at = anyio.current_time()
            return
        if memory == "forgetful":
            log.warning("redis_forgot_its_last_moments", ended=len(self._ended))
            for _, live in self._ended:
                live.log_lost()
                self._flush_later(live)
            self._ended.clear()
        while self._ended and anyio.current_time() - self._ended[0][0] > self._settings.again:
            self._ended.popleft()
        self._on_store_seen(memory)

    def _complete_logs(self) -> None:
        """Have appended what logs lack, also of answers that put nothing for a while."""
        for live in self._live.values():
            if not live.fully_logged:
                live.append_again()

    def _leases_to_renew(self) -> dict[str, dict[AnswerId, int]]:
        """Return the epochs of the answers that this process writes, or whose end it has still to log, by tenant."""
        by_tenant: defaultdict[str, dict[AnswerId, int]] = defaultdict(dict)
        unflushed = (live for live in self._unlogged.values() if live.unflushed)
        for live in (*self._live.values(), *unflushed):
            if live.loggable and not live.written_elsewhere and not self._just_renewed(live):
                by_tenant[live.who.tenant][live.answer_id] = live.epoch
        return by_tenant

    def _just_renewed(self, live: LiveAnswer) -> bool:
        """Return whether an append made the heartbeat superfluous: it only does not report readers elsewhere."""
        return bool(self._readers[live.answer_id]) and live.appended_within(self._settings.heartbeat)

    async def _end_orphans(self) -> None:
        while True:
            await anyio.sleep(self._settings.sweep_every)
            if not self._trusts_lapsed_leases(self._settings.orphaned_after):
                continue
            with suppress(StoreUnavailable):
                for tenant, answer_id in await self._log.orphans(lapsed_for=self._settings.orphaned_after):
                    with contained("orphan", self._on_failure):
                        await self._take_over(tenant, answer_id, "orphan")

    def _trusts_lapsed_leases(self, seconds: float) -> bool:
        """Return whether a lease that has lapsed means a dead writer: Redis was there, and we were, for so long.

        While Redis was away, or took no writes, nobody could renew. A process that stood still may have missed that.
        """
        return min(self._log.back_for, anyio.current_time() - self._no_renewal_at) >= seconds

    async def _end_if_lapsed(self, tenant: str, answer_id: AnswerId, lease_left: float) -> None:
        """End a cancelled answer whose writer is dead, once its lease has lapsed; else the sweep does."""
        await anyio.sleep(max(0.0, lease_left))
        with contained("cancel", self._on_failure), suppress(StoreUnavailable):
            await self._take_over(tenant, answer_id, "cancel")

    async def _take_over(self, tenant: str, answer_id: AnswerId, reason: TakeoverReason) -> bool:
        """Continue an answer whose writer's lease has lapsed; return whether this process writes it now."""
        resume = self._resume
        if resume is None or self._draining or answer_id in self._live or answer_id in self._unlogged:
            return False  # a lease of our own that has lapsed is renewed by the next append
        if not self._trusts_lapsed_leases(_TERMS * self._log.lease_seconds):
            return False
        with anyio.CancelScope(shield=True):  # what was taken over is run
            taken = await self._log.take_over(tenant, answer_id)
            if taken is None:
                return False
            log.warning("answer_taken_over", answer_id=answer_id, why=reason, epoch=taken.epoch)
            self._on_taken(reason)
            live = LiveAnswer(
                answer_id,
                Principal(tenant=tenant, sub=taken.sub, roles=frozenset(), groups=frozenset()),
                conversation_id=taken.conversation_id,
                epoch=taken.epoch,
                logged=taken.events,
                output=taken.output,
            )
            live.opening = LogOpening(passages=taken.passages, checkpoint=taken.checkpoint)
            live.abandoned = reason == "orphan" and not (taken.cancelled or taken.outcome)
            marked = replace(taken, cancelled=taken.cancelled or reason == "orphan")
            self._start_tasks(live, lambda live: resume(live, marked))
        return True

    # --- the end of the process --------------------------------------------------------------------------------------

    def begin_draining(self) -> None:
        """Open no further question and take no answer over: this process ends soon."""
        self._draining = True

    async def drained(self) -> None:
        """Wait until this process opens no question and writes no answer."""
        while self._opening:
            await self._opened.wait()
        await self._idle.wait()

    async def hand_over(self) -> None:
        """Stop writing every answer and give up its lease; an answer that only this process has is cancelled.

        Raises:
            StoreUnavailable: the leases could not be given up; they lapse by themselves.
        """
        self._handed_over = True
        self._elsewhere.end_all()
        epochs: defaultdict[str, dict[AnswerId, int]] = defaultdict(dict)
        for live in self._live.values():
            if live.finishing:
                continue
            if live.fully_logged:
                epochs[live.who.tenant][live.answer_id] = live.epoch
                live.stop_writing()
            else:
                live.scope.cancel()
        await self._idle.wait()  # an append that is still in flight would renew the lease
        for tenant, answers in epochs.items():
            await self._log.give_up(tenant, answers)


def _with_warning(live: LiveAnswer, batch: list[LogEntry]) -> list[LogEntry]:
    """Return the batch with the warning behind it: Redis may have taken the batch, under the numbers that were sent."""
    live.warned = True
    log.warning("answer_not_logged", answer_id=live.answer_id)
    warning = Notice(code=NoticeCode.DEGRADED, text=_NOT_LOGGED)
    return [*batch, entry_of(len(live.entries) + len(batch) + 1, warning)]


def _number_of(last_event_id: str | None, answer_id: AnswerId) -> int:
    """Return n of `<answer_id>.<n>`, or 0 without an id.

    Raises:
        ForeignEventId: it is none of this answer's.
    """
    if not last_event_id:
        return 0
    owner, _, n = last_event_id.rpartition(".")
    if owner != answer_id or not n.isdecimal() or len(n) > 9:
        raise ForeignEventId
    return int(n)
