"""Measures how many of a question's topics a passage names, literally or by a synonym (pure)."""

from collections.abc import Collection, Sequence

from knowledge.glossary import Glossary
from knowledge.index import indexed_text
from knowledge.passage import Passage
from knowledge.terms import Terms


class Coverage:
    """Compares a question's topics with passages; the bank's `own_names` do not count as topics."""

    def __init__(self, terms: Terms, glossary: Glossary, own_names: Collection[str]) -> None:
        self._terms = terms
        self._glossary = glossary
        self._own = frozenset(topic for name in own_names for topic in terms.topics(name))

    def unknown_share(self, question: str, passages: Sequence[Passage]) -> float:
        """Return the share in [0, 1] of the question's topics that are missing from the best-covering passage."""
        topics = [topic for topic in self._terms.topics(question) if topic not in self._own]
        if not topics:
            return 0.0
        unknown = [self._unknown_topics(question, topics, indexed_text(passage)) for passage in passages]
        return min(unknown, default=len(topics)) / len(topics)

    def _unknown_topics(self, question: str, topics: Sequence[str], text: str) -> int:
        """Return the number of topics that the text lacks, both as a term and as a substring."""
        plain = text.casefold()
        named = set(self._terms.words(text))
        for word, synonyms in self._glossary.matches(question):
            if any(synonym.casefold() in plain for synonym in synonyms):
                named.update(self._terms.topics(word))
        return sum(topic not in named and topic not in plain for topic in topics)
