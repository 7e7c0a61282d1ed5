"""Which of the passages' sentences an answer may begin with, and which are shown where the model's words are not.

They are ranked by their words and by the embedder (docs/decisions/0029). Of those to be shown the model is asked for
one token: the number of the quote that states the answer. If it is sure, that quote is shown alone, else all of them
(docs/decisions/0002). The customer does not pay for the call, as for a probe.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import anyio
import structlog
from opentelemetry import trace

from chatbot.answering import Answering
from chatbot.errors import ModelUnavailable, Overloaded, TooLarge
from chatbot.events import FinishReason
from chatbot.grounding import Quote, QuoteCandidates, QuotedAnswer, quoted_answer
from chatbot.models import LEAST_CHOICE_MASS, number_choices
from chatbot.transcript import Repair, messages_json
from knowledge.index import IndexUnavailable as IndexFailed
from knowledge.passage import Passage

log = structlog.get_logger(__name__)
tracer = trace.get_tracer(__name__)

_SIMILARITY_SECONDS: Final = 2.0
"""How long the embedder may take for eight sentences: 20 to 60 ms on a core."""


Similarities = Callable[[str, Sequence[Passage]], Awaitable[Sequence[float]]]
"""Returns each passage's cosine with a question, as `Index.similarities` does."""


async def rank_quotes(question: str, passages: Sequence[Passage], similarities: Similarities) -> tuple[Quote, ...]:
    """Return the passages' sentences that may state the answer, the likeliest first.

    Only the question's own words count: with those of the question before it, what that one asked would come first.
    """
    candidates = QuoteCandidates.of(question, passages)
    return candidates.ranked(await similarities(question, candidates.excerpts))


async def ranked_quotes(answering: Answering) -> tuple[Quote, ...]:
    """Return the sentences that may state the answer, ranked once for an answer.

    Without the embedder, or where it takes too long, the words alone decide.
    """
    turn, state, index = answering.turn, answering.state, answering.services.index

    async def similarities(question: str, excerpts: Sequence[Passage]) -> Sequence[float]:
        try:
            with anyio.fail_after(_SIMILARITY_SECONDS):
                return await index.similarities(question, excerpts)
        except (IndexFailed, TimeoutError) as exc:
            log.warning("quotes_ranked_by_words", answer_id=turn.answer_id, error=type(exc).__name__)
            return ()

    if state.ranked is None:
        with tracer.start_as_current_span("rank_quotes") as span:
            state.ranked = await rank_quotes(turn.question, turn.prompt_passages, similarities)
            span.set_attribute("quotes.ranked", len(state.ranked))
    return state.ranked


async def quotes(answering: Answering) -> QuotedAnswer:
    """Return the answer that consists of the passages' own sentences."""
    turn = answering.turn
    ranked = await ranked_quotes(answering)
    return quoted_answer(turn.question, ranked, turn.prompt_passages, language=turn.language)


async def choose_quotes(answering: Answering, *, ends: FinishReason, priority: int) -> QuotedAnswer:
    """Return the sentences to show, and let the answer end as `ends` says, or be handed to a person if it is revoked.

    Until then it ends as cancelled. A successor shows what the writer before it has shown, and asks nothing.
    """
    state, settings = answering.state, answering.services.settings
    state.finish_reason = FinishReason.CANCELLED
    quoted = await quotes(answering)
    repeated = [shown for shown in (quoted, *quoted.each()) if answering.live.log_ends_with(shown.events)]
    may_ask = len(quoted.citations) > 1 and settings.repair_certainty < 1 and ends is not FinishReason.BUDGET
    if not repeated and may_ask:
        shares = await choose(quoted, answering, priority=priority)
        quoted = quoted.most_probable(shares, settings.repair_certainty)
    state.finish_reason = FinishReason.HANDOFF if not repeated and answering.revoked() else ends
    return repeated[0] if repeated else quoted


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
    answering.state.repair = Repair(messages_json(prompt), shares)
    return shares
