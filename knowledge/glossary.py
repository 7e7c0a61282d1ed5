"""The bank's dictionary of synonyms: a question is also searched by the other words for what it names.

`glossary.yaml` is data that staff may edit; words of both languages stand side by side, so that a Korean question finds
an English document and the other way round. Matching is by the beginning of words: Korean particles do not matter.
"""

import re
from collections.abc import Sequence
from importlib.resources import files

import yaml


class Glossary:
    """Lines of words that mean nearly the same."""

    def __init__(self, lines: Sequence[Sequence[str]]) -> None:
        self.lines = tuple(tuple(line) for line in lines)
        self._line_of = {word.casefold(): line for line in self.lines for word in line}
        # The longest word of a place is taken: 정기예금 is no 예금. One pass, however long the question is.
        longest_first = sorted(self._line_of, key=len, reverse=True)
        self._words = re.compile("|".join(rf"(?<![a-z]){re.escape(word)}" for word in longest_first) or r"(?!)")

    def touched(self, question: str) -> list[tuple[str, tuple[str, ...]]]:
        """Return the words of the question that stand in a line, each with its line."""
        found = (match.group() for match in self._words.finditer(question.casefold()))
        return [(word, self._line_of[word]) for word in dict.fromkeys(found)]

    def others(self, question: str) -> str:
        """Return the other words of every line that the question touches."""
        text = question.casefold()
        others = (word for _, line in self.touched(question) for word in line if word.casefold() not in text)
        return " ".join(dict.fromkeys(others))


def load_glossary() -> Glossary:
    """Read `glossary.yaml` of this package."""
    lines: Sequence[Sequence[str]] = yaml.safe_load((files("knowledge") / "glossary.yaml").read_text("utf-8"))
    return Glossary(lines)
