"""The bank's dictionary of synonyms: a question is also searched by the other words for what it names.

`glossary.yaml` is data that staff may edit; words of both languages stand side by side, so that a Korean question finds
an English document and the other way round. Matching is by the beginning of words: Korean particles do not matter.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

import yaml


@dataclass(frozen=True, slots=True)
class Glossary:
    """Lines of words that mean nearly the same."""

    lines: tuple[tuple[str, ...], ...]

    def others(self, question: str) -> str:
        """Return the other words of every line that the question touches, the longest match of a place deciding."""
        text, found = question.casefold(), list[str]()
        for start, end, line in self._matches(text):
            if any(s <= start and end <= e and (s, e) != (start, end) for s, e, _ in self._matches(text)):
                continue  # part of a longer term: 정기예금 is no 예금
            found += [word for word in line if word.casefold() not in text]
        return " ".join(dict.fromkeys(found))

    def _matches(self, text: str) -> list[tuple[int, int, tuple[str, ...]]]:
        return [
            (match.start(), match.end(), line)
            for line in self.lines
            for word in line
            for match in re.finditer(rf"(?<![a-z]){re.escape(word.casefold())}", text)
        ]


def load_glossary() -> Glossary:
    """Read `glossary.yaml` of this package."""
    lines: Sequence[Sequence[str]] = yaml.safe_load((files("knowledge") / "glossary.yaml").read_text("utf-8"))
    return Glossary(tuple(tuple(line) for line in lines))
