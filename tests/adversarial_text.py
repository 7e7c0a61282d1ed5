"""Texts that provoke backtracking in a pattern: repetitions of its own pieces, white space, near misses.

Pieces come from the parsed pattern: texts that it would match, their prefixes, and the shortest text before each of its
repeats (in every alternative), each repeated many times.
"""

import random
from collections.abc import Iterator, Sequence
from re import Pattern, _constants, _parser  # type: ignore[attr-defined]  # the standard library's regex parser
from typing import Any, Final

FILLERS: Final = (
    " ", "\n", "\t", " \n", "a", "A", "가", "7", "a ", "가 ", "7 ", "Aa ", "a\n", "7,", "a.", "-", ".", "_", "<", "[",
    "](", "\\", "|", "<a ", "|-", "a@", "가나다라 ", "“", '"', "/",
)  # fmt: skip
_CATEGORIES: Final = {
    _constants.CATEGORY_DIGIT: "7",
    _constants.CATEGORY_NOT_DIGIT: "a",
    _constants.CATEGORY_SPACE: " ",
    _constants.CATEGORY_NOT_SPACE: "가",
    _constants.CATEGORY_WORD: "a",
    _constants.CATEGORY_NOT_WORD: "-",
}
SAMPLES: Final = 6
"""The number of texts drawn from a pattern."""
_MANY: Final = 100
"""A repeat with at least this upper bound counts as unbounded."""


def samples(pattern: Pattern[str] | Pattern[bytes], seed: int = 17) -> Iterator[str]:
    """Yield texts that the pattern is likely to match."""
    chosen = random.Random(seed)  # noqa: S311  # a repeatable choice, not a secret
    tree = _parser.parse(pattern.pattern, pattern.flags)
    for _ in range(SAMPLES):
        yield _sample(tree, chosen)


def adversarial_texts(pattern: Pattern[str] | Pattern[bytes], length: int, seed: int = 17) -> Iterator[str]:
    """Yield texts of about `length` characters."""
    yield from (_filled(*parts, length) for parts in dict.fromkeys(_parts(pattern, seed)))


def _filled(before: str, repeated: str, after: str, length: int) -> str:
    times = max(1, (length - len(before) - len(after)) // len(repeated))
    return before + repeated * times + after


def _parts(pattern: Pattern[str] | Pattern[bytes], seed: int) -> Iterator[tuple[str, str, str]]:
    for filler in FILLERS:
        yield "", filler, ""
        yield "a", filler, "b"
    chosen = random.Random(seed)  # noqa: S311  # a repeatable choice, not a secret
    for sample in samples(pattern, seed):
        for piece in dict.fromkeys((sample, sample[:-1], sample[: len(sample) // 2], sample[: len(sample) * 3 // 4])):
            if piece:
                yield "", piece, ""
                yield "", piece + " ", ""
                filler = chosen.choice(FILLERS)
                yield piece, filler, ""
                yield piece, piece[-1], "!"
                yield piece, chosen.choice((" ", "가", "a", "가 ", "a ")), "!"
    for lead, one in dict.fromkeys(_leads(_parser.parse(pattern.pattern, pattern.flags), "", chosen)):
        yield "", lead or one, ""
        yield "", lead + one, ""


def _leads(tree: Sequence[Any], lead: str, chosen: random.Random) -> Iterator[tuple[str, str]]:
    """Yield, for each unbounded repeat, the shortest text before it and a sample of its body."""
    for op, arguments in tree:
        match op:
            case _constants.BRANCH:
                for alternative in arguments[1]:
                    yield from _leads(alternative, lead, chosen)
            case _constants.SUBPATTERN | _constants.ASSERT | _constants.ASSERT_NOT:
                yield from _leads(arguments[-1], lead, chosen)
            case _constants.ATOMIC_GROUP:
                yield from _leads(arguments, lead, chosen)
            case _constants.MAX_REPEAT | _constants.MIN_REPEAT | _constants.POSSESSIVE_REPEAT:
                _, most, repeated = arguments
                if most >= _MANY and (one := _sample(repeated, chosen, most_more=0)):
                    yield lead, one
                yield from _leads(repeated, lead, chosen)
        lead += _of(op, arguments, chosen, most_more=0)


def _sample(tree: Sequence[Any], chosen: random.Random, *, most_more: int = 3) -> str:
    return "".join(_of(op, arguments, chosen, most_more=most_more) for op, arguments in tree)


def _of(op: Any, arguments: Any, chosen: random.Random, *, most_more: int) -> str:  # noqa: C901  # one case per kind of node
    match op:
        case _constants.LITERAL:
            return chr(arguments)
        case _constants.NOT_LITERAL:
            return "b" if arguments == ord("a") else "a"
        case _constants.ANY:
            return chosen.choice("a 가")
        case _constants.IN:
            return _of_class(arguments, chosen)
        case _constants.BRANCH:
            return _sample(chosen.choice(arguments[1]), chosen, most_more=most_more)
        case _constants.SUBPATTERN:
            return _sample(arguments[-1], chosen, most_more=most_more)
        case _constants.ATOMIC_GROUP:
            return _sample(arguments, chosen, most_more=most_more)
        case _constants.MAX_REPEAT | _constants.MIN_REPEAT | _constants.POSSESSIVE_REPEAT:
            least, most, repeated = arguments
            times = chosen.randint(least, min(int(most), least + most_more))
            return "".join(_sample(repeated, chosen, most_more=most_more) for _ in range(times))
        case _:  # assertions consume no characters
            return ""


def _of_class(members: Sequence[Any], chosen: random.Random) -> str:
    if members[0][0] is _constants.NEGATE:
        excluded = {chr(value) for op, value in members[1:] if op is _constants.LITERAL}
        return chosen.choice([char for char in "a가 7-b\x01" if char not in excluded])
    op, value = chosen.choice(list(members))
    if op is _constants.LITERAL:
        return chr(value)
    if op is _constants.RANGE:
        return chr(chosen.randint(*value))
    return _CATEGORIES.get(value, "a")
