"""How much likelier one word is than another as the next thing a model says, from its likeliest tokens, pure."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

# Neither word is among the likeliest tokens: the model says nothing about the question, and other evidence decides.
UNDECIDED = 0.5


def share(
    logprobs: Mapping[int, float], of: Sequence[str], against: Sequence[str], *, token_bytes: Callable[[int], bytes]
) -> float:
    """Return P(of) / (P(of) + P(against)), or `UNDECIDED` when no token begins either.

    A token that begins words of both sides (a byte that two Korean syllables share) counts for neither.
    """
    wanted, unwanted = _folded(of), _folded(against)
    pro, contra = 0.0, 0.0
    for token, logprob in logprobs.items():
        said = token_bytes(token).lstrip(b" \n\r\t").lower()
        for_it, against_it = _begins(said, wanted), _begins(said, unwanted)
        if for_it and not against_it:
            pro += math.exp(logprob)
        elif against_it and not for_it:
            contra += math.exp(logprob)
    return pro / (pro + contra) if pro + contra > 0 else UNDECIDED


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
