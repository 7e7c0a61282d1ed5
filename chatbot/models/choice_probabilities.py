"""How likely each of several words is, and nothing else, as the next thing a model says: from its likeliest tokens."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

Words = Sequence[Sequence[str]]
"""The words that a model may say, each in all its spellings."""

YES_OR_NO: Final[Words] = (("예", "Yes"), ("아니오", "No"))
MOSTLY: Final = 0.5
"""A model that says one of the words less often than this is about to say something else."""


def numbers(upto: int) -> Words:
    """Return the numbers from 1 on as words."""
    return [(str(n),) for n in range(1, upto + 1)]


def shares(
    logprobs: Mapping[int, float], words: Words, *, token_bytes: Callable[[int], bytes], least: float = 0.0
) -> tuple[float, ...]:
    """Return how likely each word is beside the others, 1 in all: equal shares when no token begins any.

    Then, and where together they are less likely than `least`, the model says nothing about the question. A token that
    begins several of the words (a byte that two Korean syllables share) counts for none.
    """
    folded = [_folded(spellings) for spellings in words]
    chances = [0.0] * len(folded)
    for token, logprob in logprobs.items():
        said = token_bytes(token).lstrip(b" \n\r\t").lower()
        meant = [n for n, spellings in enumerate(folded) if _begins(said, spellings)]
        if len(meant) == 1:
            chances[meant[0]] += math.exp(logprob)
    total = sum(chances)
    return tuple(chance / total if total > 0 and total >= least else 1 / len(folded) for chance in chances)


def _folded(words: Iterable[str]) -> tuple[bytes, ...]:
    return tuple(word.lower().encode() for word in words)


def _begins(said: bytes, words: tuple[bytes, ...]) -> bool:
    """Return whether the token is the beginning of a word, or the word and something that is not more of it."""
    return bool(said) and any(word.startswith(said) or (said.startswith(word) and _ended(said, word)) for word in words)


def _ended(said: bytes, word: bytes) -> bool:
    """Return whether `word` ends within `said`: "예." yes, "예금" (a deposit) no, "아니라" yes.

    A Korean word of two syllables carries its endings (아니+오, 아니+요); one of one syllable is too short to be sure.
    """
    after = said[len(word) :].decode("utf-8", errors="replace")[:1]
    return not (after.isalnum() or after == "\N{REPLACEMENT CHARACTER}") or (len(word) >= 6 and word >= "가".encode())
