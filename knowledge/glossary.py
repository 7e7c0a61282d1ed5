"""The bank's synonyms, which expand a question for the search.

Each line of the bank file's glossary (`knowledge.bank`) mixes Korean and English, so a question in one language finds
documents in the other. Words match as prefixes, so Korean particles do not matter.
"""

import re
from collections.abc import Sequence


class Glossary:
    """Groups of synonyms, one per line."""

    def __init__(self, lines: Sequence[Sequence[str]]) -> None:
        self.lines = tuple(tuple(line) for line in lines)
        self._line_of = {word.casefold(): line for line in self.lines for word in line}
        # The longest word wins: 정기예금 does not match as 예금. One regex keeps the match a single pass.
        longest_first = sorted(self._line_of, key=len, reverse=True)
        self._words = re.compile("|".join(rf"(?<![a-z]){re.escape(word)}" for word in longest_first) or r"(?!)")

    def matches(self, question: str) -> list[tuple[str, tuple[str, ...]]]:
        """Return the question's words that are in the glossary, each with its line."""
        words = (match.group() for match in self._words.finditer(question.casefold()))
        return [(word, self._line_of[word]) for word in dict.fromkeys(words)]

    def synonyms(self, question: str) -> str:
        """Return the synonyms that are missing from the question, separated by blanks."""
        text = question.casefold()
        synonyms = (word for _, line in self.matches(question) for word in line if word.casefold() not in text)
        return " ".join(dict.fromkeys(synonyms))
