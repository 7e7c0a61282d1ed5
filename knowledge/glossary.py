"""The bank's synonyms, by which a question is searched too.

Its lines stand in the bank's file (`knowledge.bank`) and hold words of both languages, so that a Korean question finds
an English document and the other way round. Words match by their beginning, so Korean particles do not matter.
"""

import re
from collections.abc import Sequence


class Glossary:
    """Lines of synonyms."""

    def __init__(self, lines: Sequence[Sequence[str]]) -> None:
        self.lines = tuple(tuple(line) for line in lines)
        self._line_of = {word.casefold(): line for line in self.lines for word in line}
        # The longest word matches: 정기예금 is no 예금. One pass, however long the question is.
        longest_first = sorted(self._line_of, key=len, reverse=True)
        self._words = re.compile("|".join(rf"(?<![a-z]){re.escape(word)}" for word in longest_first) or r"(?!)")

    def matches(self, question: str) -> list[tuple[str, tuple[str, ...]]]:
        """Return the words of the question that a line holds, each with its line."""
        words = (match.group() for match in self._words.finditer(question.casefold()))
        return [(word, self._line_of[word]) for word in dict.fromkeys(words)]

    def synonyms(self, question: str) -> str:
        """Return the words of the matching lines that the question does not hold, separated by blanks."""
        text = question.casefold()
        synonyms = (word for _, line in self.matches(question) for word in line if word.casefold() not in text)
        return " ".join(dict.fromkeys(synonyms))
