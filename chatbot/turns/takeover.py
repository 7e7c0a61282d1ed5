"""Continue an answer whose writer died: run `answer` again on the turn of its checkpoint and the tokens in its log.

If the log has no token, the model is asked again; otherwise it continues after the last logged token. An answer that
must not continue (cancelled, unread, revoked, or taken over too often) is ended. If the previous writer had decided the
outcome, the answer is only finished: it may be settled and recorded already.
"""

import time
from dataclasses import replace

import msgspec
import structlog

from chatbot.errors import ChatError, failed
from chatbot.events import Unknown
from chatbot.questions import CannedReply
from chatbot.records import AnswerResult
from chatbot.services import Services
from chatbot.streams import LiveAnswer, TakenOver
from chatbot.turns.answering import Answering, answer
from chatbot.turns.closing import finish
from chatbot.turns.state import Turn

log = structlog.get_logger(__name__)

_MOST_WRITERS = 5  # an answer that so many writers have begun is ended: it is the likely cause of their deaths


async def continue_answer(live: LiveAnswer, taken: TakenOver, services: Services) -> None:
    """Continue the answer where its log ends, or end it."""
    try:
        turn = msgspec.msgpack.decode(taken.opening.checkpoint, type=Turn)
    except msgspec.MsgspecError:
        log.exception("checkpoint_unreadable", answer_id=taken.answer_id)
        # The reservation stays charged until its lease ends; `OrphanedRecords` closes the answer's audit record.
        live.emit(failed(ChatError()))
        return
    seconds_since_opening = services.now() - turn.search.as_of
    turn = replace(turn, opened_at=time.monotonic() - seconds_since_opening)
    outcome = decode_outcome(taken)
    if outcome is not None:
        await finish(turn, live, outcome, services)
        return
    answering = Answering.of(turn, live, services)
    unreadable = any(isinstance(event, Unknown) for event in taken.events)  # of another release
    if unreadable:
        log.error("event_log_unreadable", answer_id=taken.answer_id)
    revoked = answering.is_revoked()
    forbidden = revoked and turn.reply is None  # a canned reply may still be shown
    if unreadable or taken.cancelled or taken.epoch > _MOST_WRITERS or forbidden:
        if revoked and not taken.cancelled:
            live.stop_repeating()
            answering.show_canned_reply(CannedReply.EMERGENCY)
        elif not taken.cancelled:
            answering.update(error=ChatError.code)
        await finish(turn, live, answering.result, services)
    else:
        await answer(turn, live, services.admission.enter_unconditionally(turn.who), services)


def decode_outcome(taken: TakenOver) -> AnswerResult | None:
    """Return the previous writer's outcome; None if there is none yet, or if this release cannot decode it."""
    try:
        return msgspec.msgpack.decode(taken.outcome, type=AnswerResult) if taken.outcome else None
    except msgspec.MsgspecError:
        log.exception("answer_outcome_unreadable", answer_id=taken.answer_id)
        return None
