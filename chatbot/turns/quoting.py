"""Which units an answer quotes: the ranking decides where its lead is clear, and elsewhere a fast model (pure).

Of units whose ranking is close the model is asked twice for the number of the one that states the answer, the second
time in the opposite order, since models prefer certain positions in a list (docs/decisions/0029).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from chatbot.chat import Chat, Message
from chatbot.prompt import PromptBuilder
from chatbot.quotes import Candidate, posterior
from knowledge.passage import Language, Passage

CHOSEN_FROM: Final = 3
"""Units among which a model chooses."""
_LONGEST_EXCERPT: Final = 300
"""Characters of a unit that the model reads to choose it."""
_MOST_SECONDS: Final = 1.0
"""How long a choice may take: a small model on a CPU chooses no better than the ranking, and takes fifteen seconds."""
_SECOND: Final = 0.4
"""Probability from which on a second unit is quoted too: the question asks two things, or both state the answer."""


def may_choose(prefill_rate: float) -> bool:
    """Return whether a model that reads so many tokens a second reads the two prompts of a choice fast enough."""
    prompts = 2 * CHOSEN_FROM * _LONGEST_EXCERPT  # characters, of which a token has at least one
    return prompts / prefill_rate <= _MOST_SECONDS


def chosen_units(ranked: Sequence[Candidate], choices: Sequence[Sequence[float]]) -> tuple[Candidate, ...]:
    """Return the likeliest unit, and the second where it is nearly as likely.

    `choices` are the probabilities that the model gave the units in the prompts of `choice_prompts`.
    """
    shares = posterior(ranked, [choices[0], *(choice[::-1] for choice in choices[1:])])
    (_, likeliest), *others = sorted(zip(shares, ranked, strict=True), key=lambda pair: -pair[0])
    return (likeliest, *(unit for share, unit in others[:1] if share >= _SECOND))


def choice_prompts(
    ranked: Sequence[Candidate],
    prompts: PromptBuilder,
    question: str,
    before: Sequence[Message],
    passages: Sequence[Passage],
    language: Language,
) -> tuple[Chat, ...]:
    """Return the prompts that ask for the number of a unit, in the order of the ranking and in the opposite one."""
    excerpts = [replace(passages[unit.n - 1], text=unit.text[:_LONGEST_EXCERPT]) for unit in ranked]
    return tuple(
        prompts.choice(question, before=before, excerpts=ordered, language=language)
        for ordered in (excerpts, excerpts[::-1])
    )
