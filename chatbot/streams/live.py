"""One answer that this process writes: its pending, published and unlogged events."""

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
    """One answer in this process; its entries are the published events. Only its own task emits."""

    stage: Stage = "writing"
    log_state: LogState = "whole"
    unread = False
    """Whether it was cancelled because nobody read it, and not by its customer."""
    outcome = b""
    """The encoded result, once it is decided, for a successor."""
    log_opening = LogOpening("")
    """The content to open its log with, also if Redis has lost the log."""

    def __init__(
        self, answer_id: AnswerId, who: Principal, *, epoch: int = 1, logged: Sequence[Event] = (), output: bytes = b""
    ) -> None:
        """`logged` are the events of its previous writer, `output` is that writer's model output."""
        super().__init__([entry_of(n, event) for n, event in enumerate(logged, 1)])
        self.answer_id = answer_id
        self.who = who
        self.epoch = epoch
        self.scope = anyio.CancelScope()
        self.output = bytearray(output)
        """The model's output, one encoded line for each piece (`chatbot.models.read_output`)."""
        self.logged_count = len(logged)
        """The number of published events that are certainly in the log."""
        self._repetition = RepetitionCheck(logged)
        self._logged_output = len(output)
        self._pending: list[Event] = []
        """Emitted events that are not yet published."""
        self._emitted = anyio.Event()
        """Wakes the writer in `next_batch`: set when there is something to log."""
        self._next_batch_done = anyio.Event()
        """Set when a batch that `next_batch` has yet to return is published, or when the answer ends before."""
        self._batch_done = anyio.Event()
        """The `_next_batch_done` of the last batch that `next_batch` returned; `publish` sets it."""
        self._unread_timer: asyncio.TimerHandle | None = None

    # --- its state ---------------------------------------------------------------------------------------------------

    def move(self, event: StageEvent) -> None:
        """Go to the stage after an event."""
        self.stage = STAGES[self.stage][event]

    def note_log_state(self, log_state: LogState) -> None:
        """Note the state of the log, unless it is deleted: the reply to an append may arrive after that report."""
        if self.log_state != "deleted":
            self.log_state = log_state

    @property
    def ended(self) -> bool:
        """Whether the event that ends the answer is published."""
        return self.stage == "ended"

    @property
    def is_written_here(self) -> bool:
        """Whether this process publishes further events of the answer."""
        return self.stage not in {"ended", "elsewhere"}

    @property
    def owes_log(self) -> bool:
        """Whether this process still has to log published events."""
        return self.log_state == "behind" and self.stage != "elsewhere"

    @property
    def published(self) -> list[Event]:
        """The events that every connection may see."""
        return [entry.event for entry in self.entries]

    # --- the work emits events --------------------------------------------------------------------------------------

    def emit(self, *events: Event, output: bytes = b"") -> list[Event]:
        """Add events to the answer and return the new ones; they are published once the log has them.

        `output` is the model's next output, for a successor; without an event it goes with the next append.

        Raises:
            Diverged: the log has other events of the previous writer.
        """
        self.output += output
        new = self._repetition.new_events(events)
        self._pending += new
        if events:
            self._emitted.set()
        return new

    def end_with(self, last: Event) -> None:
        """Emit the final event, unless one was emitted."""
        if not any(event.ends for event in self._pending):
            self.stop_repeating()
            self.emit(last)

    @property
    def repeats(self) -> bool:
        """Whether logged events of the previous writer are still to be repeated."""
        return not self._repetition.complete

    def check_repeated(self) -> None:
        """Check, after the last event, that all logged events were repeated.

        Raises:
            Diverged: the log has more.
        """
        if self.repeats:
            raise Diverged

    def stop_repeating(self) -> None:
        """Treat every further event as new, even if the log has it."""
        self._repetition = RepetitionCheck(())

    async def confirm_ownership(self, outcome: bytes = b"") -> bool:
        """Wait until the log has all events and `outcome`; return whether this process still writes the answer.

        If so, this process finishes it, and it is not handed over any more. If it dies before that, its successor ends
        the answer with `outcome`.
        """
        self.outcome = outcome
        if self.is_written_here:
            self._emitted.set()
            await self._next_batch_done.wait()
        self.move("confirm")
        return self.stage != "elsewhere"  # an answer that `fail` has ended is still finished here

    # --- its writer logs and publishes them --------------------------------------------------------------------------

    async def next_batch(self) -> list[LogEntry]:
        """Wait for pending events; return their entries."""
        await self._emitted.wait()
        self._emitted = anyio.Event()
        self._batch_done, self._next_batch_done = self._next_batch_done, anyio.Event()
        return [entry_of(n, event) for n, event in enumerate(self._pending, len(self.entries) + 1)]

    def unlogged(self, batch: Sequence[LogEntry] = ()) -> LogAppend:
        """Return everything that the log lacks, and `batch`."""
        return LogAppend(
            entries=[*self.entries[self.logged_count :], *batch],
            output_before=self._logged_output,
            output=bytes(self.output[self._logged_output :]),
            outcome=self.outcome,
            unread=self.unread,
        )

    def mark_log_lost(self) -> None:
        """Note that Redis has lost the log, or a part of it: the next append has everything."""
        self.note_log_state("behind")
        self.logged_count = self._logged_output = 0

    def append_again(self) -> None:
        """Request an append of what the log lacks, without a new event."""
        self._emitted.set()

    def mark_appended(self, appended: LogAppend) -> None:
        """Note that the log has all of `appended`."""
        self.note_log_state("whole")
        if appended.entries:
            self.logged_count = appended.entries[-1].n
        self._logged_output = appended.output_before + len(appended.output)

    def publish(self, batch: Sequence[LogEntry] = (), *, emitted: int = 0) -> None:
        """Publish entries to all connections, among them the first `emitted` pending events."""
        del self._pending[:emitted]
        if any(entry.event.ends for entry in batch):
            self.move("end")
        self.add(batch)
        if not self.is_written_here:
            self.close()
        self._batch_done.set()

    def fail(self, last: Event) -> None:
        """End an answer that cannot be written: cancel its work, and publish `last` in place of the pending events."""
        del self.output[self._logged_output :]
        self.note_log_state("behind")
        self.scope.cancel()
        self._next_batch_done.set()
        self.publish([entry_of(len(self.entries) + 1, last)])

    def stop_writing(self) -> None:
        """Stop: another replica writes the answer, and settles and records it."""
        self.move("leave")
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
        self.unread = self.unread or not self.scope.cancel_called
        self.scope.cancel()

    def stop_unread_timer(self) -> None:
        """Stop the timer of `cancel_if_unread_after`."""
        if self._unread_timer is not None:
            self._unread_timer.cancel()
