"""An answer while it is made: the turn, the stream of its events, its state, and the services that it uses."""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import anyio
from msgspec.structs import replace

from chatbot.errors import AuditUnavailable, IndexUnavailable
from chatbot.events import Event, Notice, NoticeCode, Related, RelatedPassage, Token
from chatbot.grounding import GroundingStream
from chatbot.models import Begun, Delta, Thought, read_output
from chatbot.notices import DegradationLevel, degradation_notice, notice
from chatbot.questions import CannedReply, canned_reply
from chatbot.quotes import QuotedAnswer, nearest_unit
from chatbot.services import Services
from chatbot.streams import LiveAnswer
from chatbot.transcript import FINISH, AnswerState, Turn, is_progress, shown_in
from knowledge.bank import Bank
from knowledge.passage import Passage
from knowledge.profiles import AnswerMode
from knowledge.withdrawals import Withdrawals

MOST_RELATED = 3
"""Passages that are shown in place of an answer."""


@dataclass(frozen=True, slots=True)
class Answering:
    """What every step of an answer uses; the events go to `live`, everything else that changes is in `state`."""

    turn: Turn
    live: LiveAnswer
    state: AnswerState
    services: Services

    @classmethod
    def of(cls, turn: Turn, live: LiveAnswer, services: Services) -> "Answering":
        """Return the answer at its beginning, or where the writer before this one ended."""
        progress_shown = {event.code for event in live.published if isinstance(event, Notice) and is_progress(event)}
        state = AnswerState(shown=shown_in(turn, live.published), progress_shown=progress_shown)
        answering = cls(turn, live, state, services)
        if live.output:
            answering.state.begin_after(answering.begun(), turn)
        return answering

    @property
    def bank(self) -> Bank:
        """The customer's bank."""
        return self.services.banks.of(self.turn.who.tenant)

    @property
    def quotes(self) -> bool:
        """Whether the answer consists of the bank's own words, and no word of a model has been logged."""
        return self.services.settings.answer is AnswerMode.QUOTE and not self.live.output

    def begun(self) -> Begun:
        """Return the part of the model's answer that the log has."""
        return read_output(self.live.output)

    def checks(self) -> GroundingStream:
        """Return new grounding checks for a text that answers the turn."""
        turn = self.turn
        return GroundingStream(turn.prompt_passages, question=turn.question, language=turn.language, bank=self.bank)

    # --- what is shown -----------------------------------------------------------------------------------------------

    def take(self, part: Delta | Thought, checks: GroundingStream) -> None:
        """Count and log what the model generated; of an answer its checked text is shown, of thinking that it goes on.

        What is counted is charged where the model cannot report its usage any more.
        """
        usage = self.state.usage
        if isinstance(part, Delta):
            self.state.usage = replace(usage, answer_tokens=usage.answer_tokens + part.tokens)
            self.show(checks.feed(part.text), output=part.output)
            return
        self.state.usage = replace(usage, thinking_tokens=usage.thinking_tokens + part.tokens)
        self.tell_once(NoticeCode.THINKING)

    def show(self, events: Sequence[Event], *, output: bytes = b"") -> None:
        """Put events on the stream, behind the model's output that they come from; keep those that are new."""
        fresh = self.live.put(*events, output=output)
        self.state.said = self.state.said or any(isinstance(event, Token) for event in events)
        if self.state.first_token_at is None and any(isinstance(event, Token) for event in fresh):
            self.state.first_token_at = time.monotonic()
        self.state.shown.extend(fresh)

    def tell_once(self, code: NoticeCode) -> bool:
        """Tell the customer how the answer is made, unless that was told before; return whether it was told now."""
        if code in self.state.progress_shown:
            return False
        self.live.put(notice(code, self.turn.language))
        self.state.progress_shown.add(code)
        return True

    def show_canned_reply(self, reply: CannedReply) -> None:
        """Show one of the bank's own texts: it claims nothing, so it is neither cited nor grounded."""
        text = canned_reply(reply, self.turn.language, self.bank)
        follows = self.state.said if self.live.repeats else bool(self.state.text)
        self.show([Token(text=f"\n\n{text}" if follows else text)])
        self.state.finish_reason = FINISH[reply]
        self.state.missing = self._missing(reply)
        self.state.grounded = False

    def _missing(self, reply: CannedReply) -> str:
        """Return the code of the store for want of which a reply is shown, empty where none is."""
        if reply is CannedReply.UNAVAILABLE:
            return IndexUnavailable.code
        unreadable = reply is CannedReply.EMERGENCY and not self.services.withdrawals.readable()
        return AuditUnavailable.code if unreadable else ""

    def show_quotes(self, quoted: QuotedAnswer) -> None:
        """Show the quoted units, if there are any."""
        self.show(quoted.events)
        self.state.grounded = self.state.quoted = bool(quoted.events)

    def show_related(self) -> None:
        """Show the passages that may help a customer whose question is not answered, if there are any."""
        turn = self.turn
        items = [
            RelatedPassage(
                n=n,
                document_id=passage.document_id,
                version=passage.version,
                title=passage.title,
                section=passage.section,
                page=passage.page,
                quote=quote,
            )
            for n, passage in enumerate(turn.prompt_passages[:MOST_RELATED], 1)
            if (quote := nearest_unit(turn.found.query or turn.question, passage))
        ]
        if items:
            self.show([Related(items=tuple(items))])

    def degrade(self, level: DegradationLevel) -> None:
        """Record the degradation level and show its notice."""
        self.state.degrade(level)
        self.show([degradation_notice(level, self.turn.language)])

    # --- revocation --------------------------------------------------------------------------------------------------

    def revoked(self) -> bool:
        """Return whether an emergency stop or the withdrawal of a passage forbids the answer."""
        withdrawals, now = self.services.withdrawals, self.services.now()
        passages = (hit.passage for hit in self.turn.found.hits)
        return may_not_answer(withdrawals, self.turn.who.tenant) or any(
            withdrawn(p, withdrawals, now=now) for p in passages
        )

    @contextmanager
    def until_revoked(self) -> Iterator[anyio.CancelScope]:
        """Cancel the block when the answer is revoked, also while the model is silent.

        The withdrawals tell when something has changed; else only time revokes, which the scope's deadline knows.
        """
        withdrawals = self.services.withdrawals
        ends = (hit.passage.visible_until for hit in self.turn.found.hits)
        first_end = min((end for end in ends if end is not None), default=math.inf)

        def look() -> None:
            if self.revoked():
                scope.cancel()

        left = first_end - self.services.now()
        with anyio.move_on_after(left) as scope, withdrawals.notifying(look):
            look()
            yield scope


def may_not_answer(withdrawals: Withdrawals, tenant: str) -> bool:
    """Return whether an emergency stop holds for the tenant, or the withdrawals were read too long ago to rely on."""
    return withdrawals.stopped(tenant) or not withdrawals.readable()


def withdrawn(passage: Passage, withdrawals: Withdrawals, *, now: float) -> bool:
    """Return whether a passage that was found is withdrawn, or no longer visible at `now` (Unix seconds)."""
    return withdrawals.withdrawn(passage.tenant, passage.document_id, passage.version) or passage.has_ended(now)


def is_over(passage: Passage, withdrawals: Withdrawals, *, now: float) -> bool:
    """Return whether a passage that was found may be shown no more: withdrawn, ended or replaced by `now`."""
    return withdrawn(passage, withdrawals, now=now) or withdrawals.has_ended(
        passage.tenant, passage.document_id, passage.version, now=now
    )
