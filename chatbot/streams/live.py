"""One answer in the process that writes it: its pending, published and unlogged events."""

import asyncio
from collections.abc import Sequence

import anyio

from chatbot.events import Event
from chatbot.streams.answer_state import STAGES, LogState, Stage, StageEvent
from chatbot.streams.feed import Feed
from chatbot.streams.log import AnswerId, LogAppend, LogEntry, LogOpening, entry_of
from chatbot.streams.repetition import Diverged, RepetitionCheck
from knowledge.identity import Principal


class LiveAnswer(Feed):
    """One answer that this process writes; its entries are the published events. Only its own task emits events."""

    stage: Stage = "writing"
    log_state: LogState = "whole"
    unread = False  # whether the answer was cancelled because nobody read it, and not by its customer
    outcome = b""  # the encoded result for a successor, empty until it is decided
    log_opening = LogOpening("")  # kept because the log is opened again if Redis has lost it

    def __init__(
        self, answer_id: AnswerId, who: Principal, *, epoch: int = 1, logged: Sequence[Event] = (), output: bytes = b""
    ) -> None:
        """`logged` and `output` are the events and the model output of the previous writer."""
        super().__init__([entry_of(n, event) for n, event in enumerate(logged, 1)])
        self.answer_id = answer_id
        self.who = who
        self.epoch = epoch
        self.scope = anyio.CancelScope()
        self.output = bytearray(output)  # of the model: an encoded line for each piece (`chatbot.models.read_output`)
        self.logged_count = len(logged)  # published events that are certainly in the log
        self._repetition = RepetitionCheck(logged)
        self._logged_output = len(output)
        self._pending: list[Event] = []  # emitted, and not yet published
        # Set when the log lacks events, output or the outcome: wakes the writer in `next_batch`.
        self._emitted = anyio.Event()
        # A batch that is being logged may lack a new outcome, so `confirm_ownership` waits for the batch after it.
        self._next_batch_done = anyio.Event()  # also set when the answer ends before that batch
        self._batch_done = anyio.Event()
        self._unread_timer: asyncio.TimerHandle | None = None

    # --- its state ---------------------------------------------------------------------------------------------------

    def change_stage(self, event: StageEvent) -> None:
        """Change to the stage that follows an event; an illegal event is a bug and raises `KeyError`."""
        self.stage = STAGES[self.stage][event]

    def update_log_state(self, log_state: LogState) -> None:
        """Set the state of the log, unless it is deleted: an append's reply may arrive after the deletion's."""
        if self.log_state != "deleted":
            self.log_state = log_state

    @property
    def ended(self) -> bool:
        """Whether the last event of the answer is published."""
        return self.stage == "ended"

    @property
    def is_written_here(self) -> bool:
        """Whether this process publishes further events of the answer."""
        return self.stage not in {"ended", "elsewhere"}

    @property
    def must_log(self) -> bool:
        """Whether this process still has to log published events."""
        return self.log_state == "behind" and self.stage != "elsewhere"

    @property
    def published_events(self) -> list[Event]:
        """The events that every connection may see."""
        return [entry.event for entry in self.entries]

    # --- its own task emits events -----------------------------------------------------------------------------------

    def emit(self, *events: Event, output: bytes = b"") -> list[Event]:
        """Add events to the answer, without those that the log already has; return the new ones.

        The writer logs and then publishes them. `output` is the model's next output for a successor; without an event,
        it is appended together with the next event.

        Raises:
            Diverged: the previous writer has logged different events.
        """
        self.output += output
        new = self._repetition.new_events(events)
        self._pending += new
        if events:
            self._emitted.set()
        return new

    def end_with(self, last: Event) -> None:
        """Emit the last event, unless a last event is pending."""
        if not any(event.ends for event in self._pending):
            self.stop_repeating()
            self.emit(last)

    @property
    def is_repeating(self) -> bool:
        """Whether this successor has yet to repeat events that the previous writer logged."""
        return not self._repetition.complete

    def check_all_repeated(self) -> None:
        """Check, before the last event, that all logged events were repeated.

        Raises:
            Diverged: the previous writer has logged more events.
        """
        if self.is_repeating:
            raise Diverged

    def stop_repeating(self) -> None:
        """Treat every further event as new, even if the log already has it."""
        self._repetition = RepetitionCheck(())

    async def confirm_ownership(self, outcome: bytes = b"") -> bool:
        """Wait until the log has all events and `outcome`; return whether this process still owns the answer.

        If so, this process finishes the answer and no longer hands it over. If this process dies first, its successor
        ends the answer with `outcome`.
        """
        self.outcome = outcome
        if self.is_written_here:
            self._emitted.set()
            await self._next_batch_done.wait()
        self.change_stage("confirm")
        return self.stage != "elsewhere"  # an answer that `fail` has ended is still finished here

    # --- its writer logs and publishes events ------------------------------------------------------------------------

    async def next_batch(self) -> list[LogEntry]:
        """Wait until there is something to log; return the entries of the pending events."""
        await self._emitted.wait()
        self._emitted = anyio.Event()
        self._batch_done = self._next_batch_done
        self._next_batch_done = anyio.Event()
        return [entry_of(n, event) for n, event in enumerate(self._pending, len(self.entries) + 1)]

    def missing_append(self, batch: Sequence[LogEntry] = ()) -> LogAppend:
        """Return the append of everything that the log lacks, `batch` included."""
        return LogAppend(
            entries=[*self.entries[self.logged_count :], *batch],
            output_before=self._logged_output,
            output=bytes(self.output[self._logged_output :]),
            outcome=self.outcome,
            unread=self.unread,
        )

    def mark_log_lost(self) -> None:
        """Record that Redis has lost the log or a part of it: the next append logs everything again."""
        self.update_log_state("behind")
        self.logged_count = 0
        self._logged_output = 0

    def request_append(self) -> None:
        """Wake the writer to append the missing entries, without a new event."""
        self._emitted.set()

    def mark_appended(self, appended: LogAppend) -> None:
        """Record that the log has all of `appended`."""
        self.update_log_state("whole")
        if appended.entries:
            self.logged_count = appended.entries[-1].n
        self._logged_output = appended.output_before + len(appended.output)

    def publish(self, batch: Sequence[LogEntry] = (), *, pending_count: int = 0) -> None:
        """Publish entries to all connections; the first `pending_count` pending events are among them."""
        del self._pending[:pending_count]
        if any(entry.event.ends for entry in batch):
            self.change_stage("end")
        self.add(batch)
        if not self.is_written_here:
            self.close()
        self._batch_done.set()

    def fail(self, last: Event) -> None:
        """End an answer that cannot be written: cancel its task, and publish `last` in place of the pending events."""
        del self.output[self._logged_output :]
        self.update_log_state("behind")
        self.scope.cancel()
        self._next_batch_done.set()
        self.publish([entry_of(len(self.entries) + 1, last)])

    def stop_writing(self) -> None:
        """Stop writing: another replica continues, settles and records the answer."""
        self.change_stage("leave")
        self.scope.cancel()
        self.stop_unread_timer()
        self._next_batch_done.set()
        self._emitted.set()
        self.publish()

    # --- its readers -------------------------------------------------------------------------------------------------

    def cancel_if_unread_after(self, grace: float) -> None:
        """Cancel the answer in `grace` seconds, unless `stop_unread_timer` is called before."""
        self.stop_unread_timer()
        if not self.ended:
            self._unread_timer = asyncio.get_running_loop().call_later(grace, self._cancel_unread)

    def _cancel_unread(self) -> None:
        if not self.scope.cancel_called:
            self.unread = True
        self.scope.cancel()

    def stop_unread_timer(self) -> None:
        """Stop the timer that `cancel_if_unread_after` has started."""
        if self._unread_timer is not None:
            self._unread_timer.cancel()
