"""Let a model choose which of the closely ranked units an answer quotes (pure).

The model is asked twice for the number of the unit that states the answer. The second time the units are in reverse
order, since models prefer certain positions in a list (docs/decisions/0029).
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
_LEAST_SECOND: Final = 0.4
"""From this probability a second unit is quoted too: the question asks two things, or both units state the answer."""


def may_choose(prefill_rate: float) -> bool:
    """Return whether a model with this prefill rate, in tokens per second, reads both prompts fast enough."""
    most_tokens = 2 * CHOSEN_FROM * _LONGEST_EXCERPT  # a token has at least one character
    return most_tokens / prefill_rate <= _MOST_SECONDS


def chosen_units(ranked: Sequence[Candidate], choices: Sequence[Sequence[float]]) -> tuple[Candidate, ...]:
    """Return the likeliest unit, and the second likeliest too if its probability is at least 0.4.

    `choices` has for each prompt of `choice_prompts` the units' probabilities, in that prompt's order.
    """
    first, *reversed_choices = choices
    in_ranked_order = [first, *(choice[::-1] for choice in reversed_choices)]
    pairs = zip(posterior(ranked, in_ranked_order), ranked, strict=True)
    (_, likeliest), *others = sorted(pairs, key=lambda pair: -pair[0])
    likely_second = [unit for probability, unit in others[:1] if probability >= _LEAST_SECOND]
    return (likeliest, *likely_second)


def choice_prompts(
    ranked: Sequence[Candidate],
    prompts: PromptBuilder,
    question: str,
    before: Sequence[Message],
    passages: Sequence[Passage],
    language: Language,
) -> tuple[Chat, ...]:
    """Return two prompts that ask for a unit's number: in the order of the ranking, and in the opposite order."""
    excerpts = [replace(passages[unit.n - 1], text=unit.text[:_LONGEST_EXCERPT]) for unit in ranked]
    return tuple(
        prompts.choice_prompt(question, before=before, excerpts=ordered, language=language)
        for ordered in (excerpts, excerpts[::-1])
    )
