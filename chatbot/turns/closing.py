"""End an answer: `finish` settles and records it, once and shielded, and then emits its final event."""

import time
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import anyio
import msgspec
import structlog

from chatbot.audit import AuditClosed
from chatbot.conversations import StoredMessage
from chatbot.errors import AuditUnavailable, ChatError, error_of, failed
from chatbot.events import Citation, Done, Event, Limits, Notice, Related
from chatbot.questions import handoff
from chatbot.records import AnswerResult, TurnFinished
from chatbot.services import Services
from chatbot.streams import LiveAnswer
from chatbot.turns.state import Turn, passage_refs, question_message, shown_events, sources, text_of
from telemetry.supervision import contained

log = structlog.get_logger(__name__)
E = TypeVar("E", bound=Event)


@dataclass(frozen=True, slots=True)
class EndedAnswer:
    """An ended answer: its turn, its result, and the events its customer has received."""

    turn: Turn
    result: AnswerResult
    shown: tuple[Event, ...] = ()

    def shown_of(self, kind: type[E]) -> tuple[E, ...]:
        """Return the shown events of one kind."""
        return tuple(event for event in self.shown if isinstance(event, kind))


async def discard_turn(turn: Turn, services: Services) -> None:
    """Release the reservation of a turn that will not be answered, and close its audit record if one was opened."""
    unanswered = EndedAnswer(turn, AnswerResult(error=AuditUnavailable.code))
    services.audit.close_if_opened(audit_closed(unanswered, at=services.now()))
    await settle(unanswered, services)


async def finish(
    turn: Turn, live: LiveAnswer, result: AnswerResult, services: Services, *, first_token_at: float | None = None
) -> None:
    """Settle and record the answer, and then emit its final event; do nothing if another replica writes the answer.

    A client that reads the history right after the final event finds the answer there. `first_token_at` is monotonic
    time in seconds.
    """
    with anyio.CancelScope(shield=True):
        if not await live.confirm_ownership(msgspec.msgpack.encode(result)):
            return
        if live.ended:  # by `LiveAnswer.fail`, because its events could not be logged
            result = msgspec.structs.replace(result, error=ChatError.code, retry_after=None, grounded=False)
        ended = EndedAnswer(turn, result, shown_events(turn, live.published_events))
        limits = await settle(ended, services)
        await remember_answer(ended, services)
    with anyio.move_on_after(services.settings.finish_timeout, shield=True) as scope, contained("record"):
        await close_audit(ended, services)
    if scope.cancelled_caught:
        log.error("answer_recording_timed_out", answer_id=turn.answer_id)
    record_metrics(ended, first_token_at, services)
    live.emit(last_event(ended, limits, services))


async def settle(ended: EndedAnswer, services: Services) -> Limits | None:
    """Charge the used tokens, once; return the caller's remaining limits, or None if they are charged later."""
    settlement = partial(services.ledger.settle, ended.turn.reservation, ended.result.usage)
    return await services.deferred.write("settlement", settlement)


async def remember_answer(ended: EndedAnswer, services: Services) -> None:
    """Append question and answer to the history, now or later; do nothing if the history lacks the question.

    The question was appended before the answer; it is appended again because Redis may have lost it in a failover.
    """
    turn, now = ended.turn, services.now()
    if turn.question_in_history:
        messages = [question_message(turn), answer_message(ended, at=now)]
        append = partial(services.history.append, turn.who, turn.conversation_id, messages, now=now)
        await services.deferred.write("history", append)


async def close_audit(ended: EndedAnswer, services: Services) -> None:
    """Close the audit record, or log that it stays open; `chatbot audit verify` reports open records."""
    try:
        await services.audit.close(audit_closed(ended, at=services.now()))
    except AuditUnavailable:
        log.exception("audit_record_close_failed", answer_id=ended.turn.answer_id)


def record_metrics(ended: EndedAnswer, first_token_at: float | None, services: Services) -> None:
    """Record the ended answer in the metrics."""
    turn = ended.turn
    finished = TurnFinished(
        result=ended.result,
        language=turn.language,
        seconds=time.monotonic() - turn.opened_at,
        first_token_seconds=None if first_token_at is None else first_token_at - turn.opened_at,
        citations=len(ended.shown_of(Citation)),
        related=bool(ended.shown_of(Related)),
    )
    with contained("metrics"):
        services.metrics.turn_finished(finished)


def audit_closed(ended: EndedAnswer, *, at: float) -> AuditClosed:
    """Return the closing audit record."""
    turn = ended.turn
    return AuditClosed(
        answer_id=turn.answer_id, tenant=turn.who.tenant, result=ended.result, at=at, text=text_of(ended.shown)
    )


def answer_message(ended: EndedAnswer, *, at: float) -> StoredMessage:
    """Return the answer for the history."""
    turn, result = ended.turn, ended.result
    return StoredMessage(
        id=turn.answer_id,
        parent_id=turn.question_id,
        role="assistant",
        text=text_of(ended.shown),
        at=at,
        answer_id=turn.answer_id,
        sources=sources(turn).items,
        passages=passage_refs(turn),
        citations=ended.shown_of(Citation),
        related=tuple(item for event in ended.shown_of(Related) for item in event.items),
        notices=(*turn.notices, *ended.shown_of(Notice)),
        finish_reason="error" if result.error else result.finish_reason,
        grounded=result.grounded and result.quoted,
    )


def last_event(ended: EndedAnswer, limits: Limits | None, services: Services) -> Event:
    """Return the final event: `Done`, or an error with the bank's contact.

    `Done` omits the cached tokens: customers of a tenant share a prefix cache, and the number would show one customer
    what another has asked (docs/decisions/0021).
    """
    turn, result = ended.turn, ended.result
    if result.error:
        error = error_of(result.error, retry_after=result.retry_after)
        contact = handoff(turn.language, services.banks.of(turn.who.tenant))
        return failed(error, trace_id=turn.trace_id, handoff=contact)
    return Done(
        finish_reason=result.finish_reason,
        usage=msgspec.structs.replace(result.usage, cached_tokens=0),
        grounded=result.grounded and result.quoted,
        quoted=result.quoted,
        written=result.grounded and not result.quoted,
        limits=limits,
    )
