"""What takes the place of an answer that the checks withheld whole: quotes of its passages (docs/decisions/0002).

The model is asked for one token: the number of the quote that states the answer. If it is sure, that quote is shown
alone, else all of them. The customer does not pay for the call, as for a probe.
"""

import structlog
from opentelemetry import trace

from chatbot.answering import Answering
from chatbot.errors import ModelUnavailable, Overloaded, TooLarge
from chatbot.events import FinishReason
from chatbot.grounding import GroundingStream, QuotedAnswer
from chatbot.models import LEAST_CHOICE_MASS, number_choices
from chatbot.transcript import Repair

log = structlog.get_logger(__name__)
tracer = trace.get_tracer(__name__)


async def repair(checks: GroundingStream, answering: Answering, *, priority: int) -> QuotedAnswer:
    """Return the quotes to show, none unless the answer was withheld whole.

    A successor shows the quotes that the writer before it has shown.
    """
    turn, state = answering.turn, answering.state
    quoted = checks.quotes(turn.found.query)
    for shown in (quoted, *quoted.each()):
        if answering.live.log_ends_with(shown.events):
            return shown
    certainty, finish_reason = answering.services.settings.repair_certainty, state.finish_reason
    if len(quoted.citations) < 2 or certainty == 1 or finish_reason in {FinishReason.BUDGET, FinishReason.HANDOFF}:
        return quoted
    state.finish_reason = FinishReason.CANCELLED  # if the answer is stopped while the model chooses
    shares = await choose(quoted, answering, priority=priority)
    state.finish_reason = FinishReason.HANDOFF if answering.revoked() else finish_reason
    return quoted.most_probable(shares, certainty)


async def choose(quoted: QuotedAnswer, answering: Answering, *, priority: int) -> tuple[float, ...]:
    """Return the model's probability of each quote, among the quotes alone; nothing where no model can be asked."""
    turn, services = answering.turn, answering.services
    prompt = services.prompts.repair(
        turn.question,
        before=turn.prompt.before,
        excerpts=quoted.excerpts([hit.passage for hit in turn.found.hits]),
        language=turn.language,
    )
    with tracer.start_as_current_span("repair") as span:
        try:
            shares = await services.models.choice_probabilities(
                prompt,
                number_choices(len(quoted.citations)),
                conversation_id=turn.conversation.id,
                cache_salt=services.cache_salt(turn.who.tenant),
                priority=priority,
                least_mass=LEAST_CHOICE_MASS,
            )
        except (ModelUnavailable, Overloaded, TooLarge) as exc:
            log.warning("repair_not_asked", answer_id=turn.answer_id, error=exc.code)
            return ()
        span.set_attribute("repair.shares", shares)
    answering.state.repair = Repair(tuple(prompt.ids), shares)
    return shares
