"""Answers with the bank's own words: ranked units of the passages, among which a model chooses where they are close.

The ranking decides where its lead is clear. Otherwise a model that reads fast is asked twice for the number of the unit
that states the answer, the second time in the opposite order, since models prefer a place; without one the first two
units are quoted (docs/decisions/0029). What it computes is charged as the tokens of an answer are.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations
from typing import Final

import structlog
from opentelemetry import trace

from chatbot.answerability import Evidence
from chatbot.answering import Answering
from chatbot.chat import Chat, Message
from chatbot.errors import ModelUnavailable, Overloaded, TooLarge
from chatbot.events import FinishReason
from chatbot.models import LEAST_CHOICE_MASS, number_choices
from chatbot.prompt import PromptBuilder
from chatbot.quotes import Candidate, QuotedAnswer, asks_two_things, introduced, is_close, posterior, rank
from chatbot.transcript import Choice, messages_json
from knowledge.passage import Language, Passage

log = structlog.get_logger(__name__)
tracer = trace.get_tracer(__name__)

CHOSEN_FROM: Final = 3
"""Units among which a model chooses."""
_LONGEST_EXCERPT: Final = 300
"""Characters of a unit that the model reads to choose it."""
_MOST_SECONDS: Final = 1.0
"""How long a choice may take: a small model on a CPU chooses no better than the ranking, and takes fifteen seconds."""
_SECOND: Final = 0.4
"""Probability from which on a second unit is quoted too: the question asks two things, or both state the answer."""


def ranked_units(answering: Answering) -> tuple[Candidate, ...]:
    """Return what the passages of an answer state, the likeliest answer to the question first."""
    turn = answering.turn
    return rank(turn.question, turn.found.hits[: turn.prompt.passages], turn.language, turn.shown_before)


async def quote(answering: Answering, evidence: Evidence, *, ends: FinishReason, priority: int) -> QuotedAnswer:
    """Return the answer that quotes, and let it end as `ends` says, or be handed to a person if it is revoked.

    Until then it ends as cancelled.
    """
    state, ranked = answering.state, ranked_units(answering)
    if (repeated := shown_before(ranked, answering, certain=evidence is Evidence.CERTAIN)) is not None:
        state.finish_reason = ends
        return repeated
    state.finish_reason = FinishReason.CANCELLED
    if asks_two_things(answering.turn.question):
        chosen = ranked[:2]
    elif not is_close(ranked):
        chosen = ranked[:1]
    elif evidence is Evidence.CERTAIN and may_choose(answering) and ends is not FinishReason.BUDGET:
        chosen = await choose(ranked[:CHOSEN_FROM], answering, priority=priority)
    else:
        chosen = ranked[:2]
    shown = answering.turn.shown_before
    if all(unit.text in shown for unit in chosen):  # a follow-up is not answered with the previous answer alone
        chosen = (*chosen, *[unit for unit in ranked if unit.text not in shown][:1])
    state.finish_reason = FinishReason.HANDOFF if answering.revoked() else ends
    return quoted_answer(chosen, answering, certain=evidence is Evidence.CERTAIN)


def shown_before(ranked: Sequence[Candidate], answering: Answering, *, certain: bool) -> QuotedAnswer | None:
    """Return the answer that the writer before this one has shown, if it has: a successor asks nothing again."""
    most = ranked[:CHOSEN_FROM]
    choices = [*((unit,) for unit in most), *permutations(most, 2)]
    answers = (quoted_answer(choice, answering, certain=certain) for choice in choices)
    return next((shown for shown in answers if answering.live.log_ends_with(shown.events)), None)


def quoted_answer(chosen: Sequence[Candidate], answering: Answering, *, certain: bool) -> QuotedAnswer:
    """Return the answer that quotes these units."""
    return introduced(chosen, answering.turn.prompt_passages, answering.turn.language, certain=certain)


def may_choose(answering: Answering) -> bool:
    """Return whether the model reads the two prompts of a choice fast enough, as its profile says."""
    prompts = 2 * CHOSEN_FROM * _LONGEST_EXCERPT  # characters, of which a token has at least one
    return prompts / answering.services.models.pool.prefill_rate <= _MOST_SECONDS


async def choose(ranked: Sequence[Candidate], answering: Answering, *, priority: int) -> tuple[Candidate, ...]:
    """Return the units that answer the question, by the ranking and the model; by the ranking without a model."""
    turn, services, state = answering.turn, answering.services, answering.state
    prompts = choice_prompts(
        ranked,
        services.prompts,
        question=turn.question,
        before=turn.prompt.before,
        passages=turn.prompt_passages,
        language=turn.language,
    )
    choices: list[tuple[float, ...]] = []
    with tracer.start_as_current_span("choose") as span:
        try:
            for prompt in prompts:
                shares = await services.models.choice_probabilities(
                    prompt,
                    number_choices(len(ranked)),
                    conversation_id=turn.conversation.id,
                    cache_salt=services.cache_salt(turn.who.tenant),
                    priority=priority,
                    least_mass=LEAST_CHOICE_MASS,
                )
                state.charge(prompt)
                choices.append(shares)
        except (ModelUnavailable, Overloaded, TooLarge) as exc:
            log.warning("choice_skipped", answer_id=turn.answer_id, error=exc.code)
            return tuple(ranked[:2])
        shares = posterior(ranked, in_ranked_order(choices))
        span.set_attribute("choice.shares", shares)
    state.choice = Choice(prompts_json(prompts), tuple(choices[0]))
    return chosen_units(ranked, shares)


def chosen_units(ranked: Sequence[Candidate], shares: Sequence[float]) -> tuple[Candidate, ...]:
    """Return the likeliest unit, and the second where it is nearly as likely."""
    order = sorted(range(len(ranked)), key=lambda at: -shares[at])
    return tuple(ranked[at] for place, at in enumerate(order[:2]) if place == 0 or shares[at] >= _SECOND)


def choice_prompts(
    ranked: Sequence[Candidate],
    prompts: PromptBuilder,
    *,
    question: str,
    before: Sequence[Message],
    passages: Sequence[Passage],
    language: Language,
) -> tuple[Chat, Chat]:
    """Return the prompts that ask for the number of a unit, in the order of the ranking and in the opposite one."""
    excerpts = [replace(passages[unit.n - 1], text=unit.text[:_LONGEST_EXCERPT]) for unit in ranked]
    first, second = (
        prompts.repair(question, before=before, excerpts=ordered, language=language)
        for ordered in (excerpts, excerpts[::-1])
    )
    return first, second


def in_ranked_order(choices: Sequence[Sequence[float]]) -> list[Sequence[float]]:
    """Return the model's choices by the ranking: the second was asked in the opposite order."""
    return [choices[0], *(choice[::-1] for choice in choices[1:])]


def prompts_json(prompts: Sequence[Chat]) -> str:
    """Return the messages of a choice's prompts as the audit hashes them."""
    return "".join(map(messages_json, prompts))
