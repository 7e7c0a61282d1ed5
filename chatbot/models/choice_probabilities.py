"""Compute the probability that a model's next word is each of a few choices, from its most likely next tokens."""

import math
from collections.abc import Iterable, Sequence
from typing import Final

Choices = Sequence[Sequence[str]]
"""The permitted words of a model's answer, each with all its spellings."""

YES_OR_NO: Final[Choices] = (("예", "Yes"), ("아니오", "No"))
LEAST_CHOICE_MASS: Final = 0.5
"""The least total probability of the choices: below it, the model is about to write something else."""


def number_choices(count: int) -> Choices:
    """Return the numbers from 1 to `count` as choices."""
    return [(str(n),) for n in range(1, count + 1)]


def choice_probabilities(
    logprobs: Iterable[tuple[bytes, float]], choices: Choices, *, least_mass: float = 0.0
) -> tuple[float, ...]:
    """Return the probability of each choice given that one of them is next; they sum to 1.

    `logprobs` are tokens with their natural log probabilities. All choices are equally likely if no token begins any
    of them, or if their total probability is below `least_mass`. A token that begins several choices (a byte that two
    Korean syllables share) is ignored.
    """
    words_by_choice = [[spelling.lower().encode() for spelling in choice] for choice in choices]
    masses = [0.0] * len(choices)
    for token, logprob in logprobs:
        text = token.lstrip(b" \n\r\t").lower()
        matching_choices = [n for n, words in enumerate(words_by_choice) if any(_begins(text, word) for word in words)]
        if len(matching_choices) == 1:
            masses[matching_choices[0]] += math.exp(logprob)
    total = sum(masses)
    if total == 0 or total < least_mass:
        return (1 / len(choices),) * len(choices)
    return tuple(mass / total for mass in masses)


def _begins(token: bytes, word: bytes) -> bool:
    """Return whether the token begins the word, or is the word with punctuation: "예." counts, "예금" and "" do not.

    A Korean word of two syllables may have endings (아니+오, 아니+요); a single syllable is too ambiguous.
    """
    if not token.startswith(word):
        return token != b"" and word.startswith(token)
    is_long_korean_word = len(word) >= 6 and word >= "가".encode()  # a syllable has three bytes
    next_character = token[len(word) :].decode("utf-8", errors="replace")[:1]
    word_continues = next_character.isalnum() or next_character == "\N{REPLACEMENT CHARACTER}"
    return is_long_korean_word or not word_continues
