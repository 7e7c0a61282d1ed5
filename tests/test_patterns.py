"""Every pattern of the tree does linear work on any text: whoever writes a text cannot stop a process with it.

Texts are made from each pattern (`tests/adversarial_text.py`): repeats of its own pieces, white space, near misses.
Work is measured in processor time of this thread, the least of several tries, so that other programs do not count.
"""

import ast
import importlib
import re
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from re import Pattern

import pytest

from tests.adversarial_text import adversarial_texts

ROOT = Path(__file__).parents[1]
# Not evals and llm_server: what they read is written here.
PACKAGES = ("chatbot", "edge", "ingest", "knowledge", "telemetry")
NOT_IMPORTED = (
    *("ingest.bulk.batch", "knowledge.storage.migrations.env"),  # parts of Ray and of Alembic's own process
    "llm_server.conversion",  # torch takes seconds
)
"""They have no pattern."""
# Patterns made from words at run time: an alternation of escaped words is linear.
ESCAPED_WORDS = {"chatbot/tokens.py", "knowledge/glossary.py", "knowledge/index/collection.py"}
FUNCTIONS = {"compile", "search", "match", "fullmatch", "sub", "subn", "split", "findall", "finditer"}
LONGEST_QUESTION = 4000
MOST_GROWTH = {250: 6.0, LONGEST_QUESTION // 2: 2.5}
"""By the length of the text that is doubled. The short one shows an exponential or cubic pattern before it takes
minutes; there a bound on repeats, as `{0,200}`, is not yet felt, and its pattern's work grows nearly as a square.
"""
# Below this no measure of growth is exact, and no text of 4,000 characters delays anybody.
NEGLIGIBLE_SECONDS = 0.002
TRIES = 3


def module_names() -> Iterator[str]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            if not name.endswith("__main__") and name not in NOT_IMPORTED:
                yield name


@cache
def patterns() -> dict[str, list[Pattern[str] | Pattern[bytes]]]:
    """Return the compiled patterns of each module, and those that its functions compile from literals.

    A pattern that several modules have is the first one's.
    """
    first = {pattern: name for name in reversed([*module_names()]) for pattern in (*_kept(name), *_inline(name))}
    return {name: [pattern for pattern, owner in first.items() if owner == name] for name in module_names()}


def _kept(name: str) -> Iterator[Pattern[str] | Pattern[bytes]]:
    waiting: list[object] = [value for key, value in vars(importlib.import_module(name)).items() if key[:2] != "__"]
    while waiting:
        match waiting.pop():
            case re.Pattern() as pattern:
                yield pattern
            case tuple() | list() | frozenset() | set() as many:
                waiting.extend(many)
            case dict() as table:
                waiting.extend([*table, *table.values()])


def _inline(name: str) -> Iterator[Pattern[str] | Pattern[bytes]]:
    module = importlib.import_module(name)
    path = Path(str(module.__file__))
    source = path.read_text("utf-8")
    if "re." not in source:
        return
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for call in ast.walk(function):
            if (
                isinstance(call, ast.Call)
                and isinstance(call.func, ast.Attribute)
                and isinstance(call.func.value, ast.Name)
                and call.func.value.id == "re"
                and call.func.attr in FUNCTIONS
                and str(path.relative_to(ROOT)) not in ESCAPED_WORDS
                and not (isinstance(call.args[0], ast.Name) and call.args[0].id not in vars(module))  # kept in a table
            ):
                pattern = eval(compile(ast.Expression(call.args[0]), str(path), "eval"), vars(module))  # noqa: S307  # our own source
                yield re.compile(pattern)


def seconds(pattern: Pattern[str] | Pattern[bytes], text: str) -> float:
    subject = text if isinstance(pattern.pattern, str) else text.encode("utf-8", "replace")
    began = time.thread_time()
    for _ in pattern.finditer(subject):  # type: ignore[arg-type]  # a pattern of bytes has bytes
        pass
    return time.thread_time() - began


def growth(pattern: Pattern[str] | Pattern[bytes], text: str, doubled: str) -> float:
    """Return how many times the work of a text its double costs, by the least of several tries of each."""
    tries = [(seconds(pattern, text), seconds(pattern, doubled)) for _ in range(TRIES)]
    return min(longer for _, longer in tries) / max(1e-9, min(shorter for shorter, _ in tries))


@pytest.mark.parametrize("module", [name for name, found in patterns().items() if found])
def test_a_text_of_twice_the_length_takes_about_twice_the_work(module: str) -> None:
    for pattern in patterns()[module]:
        for length, most in MOST_GROWTH.items():
            pairs = zip(adversarial_texts(pattern, length), adversarial_texts(pattern, 2 * length), strict=True)
            for text, doubled in pairs:
                if (longer := seconds(pattern, doubled)) > NEGLIGIBLE_SECONDS:
                    grown = longer / max(1e-9, seconds(pattern, text))
                    for _ in range(5):  # a busy machine disturbs one measure; work that is not linear shows in each
                        grown = grown if grown <= most else growth(pattern, text, doubled)
                    assert grown <= most, f"{grown:.1f} × on {doubled[:80]!r}: {pattern.pattern!r}"


def test_a_pattern_of_a_whole_text_lets_no_line_feed_pass() -> None:
    # `$` matches before a last line feed too: what a whole text must be is asked with `fullmatch`, or ends in `\\Z`.
    ending = [
        f"{module}: {pattern.pattern!r}"
        for module, found in patterns().items()
        for pattern in found
        if isinstance(pattern.pattern, str) and not pattern.flags & re.MULTILINE
        if pattern.pattern.startswith("^") and pattern.pattern.endswith("$")
    ]
    assert ending == []
