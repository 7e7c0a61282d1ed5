"""Going on with an answer whose writer is dead: the turn as it was, the tokens so far, and `turn.py` once more.

Before the first token the model's part begins anew; after it, the model goes on from the next token. What must not go
on (cancelled, nobody came back, the bank took back what it stands on, one writer after another died) is ended.
"""

import time
from dataclasses import replace

import msgspec
import structlog

from chatbot.errors import ChatError
from chatbot.events import Failed
from chatbot.questions import CannedReply
from chatbot.services import Services
from chatbot.streams import LiveAnswer, TakenOver, whole_tokens
from chatbot.transcript import AnswerState, Turn, turn_of
from chatbot.turn import answer, finish, revoked, say

log = structlog.get_logger(__name__)

_MOST_WRITERS = 5
"""An answer that has killed so many processes is the likely cause."""


async def resume(running: LiveAnswer, taken: TakenOver, services: Services) -> None:
    """Go on with the answer where its log ends, or end it."""
    try:
        turn = turn_of(taken.frame)
    except msgspec.MsgspecError:
        log.exception("frame_unreadable", answer_id=taken.answer_id)
        running.put(unreadable())
        return
    turn = replace(turn, opened_at=time.monotonic() - (services.now() - turn.found.as_of))
    running.continue_after(whole_tokens(taken.token_ids, services.models.tokenizer.decode))
    taken_back = turn.reply is None and revoked(turn, services)
    if taken.cancelled or taken.epoch > _MOST_WRITERS or taken_back:
        await end(turn, running, taken, services)
    else:
        await answer(turn, running, services.admission.enter_unconditionally(turn.who), services)


async def end(turn: Turn, running: LiveAnswer, taken: TakenOver, services: Services) -> None:
    """Settle and record what was shown, and say why it ends here."""
    draft = AnswerState.of(turn, running)
    if revoked(turn, services) and not taken.cancelled:
        running.stop_repeating()
        say(CannedReply.EMERGENCY, turn, running, draft, services)
    elif not taken.cancelled:
        draft.error = ChatError()
    await finish(turn, running, draft, services)


def unreadable() -> Failed:
    """Return the end of an answer of which nothing can be known: it stays charged, and its audit row open."""
    exc = ChatError()
    return Failed(
        code=exc.code,
        status=exc.status,
        title=exc.title,
        retryable=exc.retryable,
        retry_after_ms=None,
        trace_id="",
        handoff="",
    )
