"""How much of what a question names a passage says: nouns and words of both languages, by themselves or by another word
for the same (pure)."""

from collections.abc import Collection, Sequence

from knowledge.glossary import Glossary
from knowledge.index import indexed_text
from knowledge.passage import Passage
from knowledge.terms import Terms


class Coverage:
    """Compares a question's topics with passages; `own_names` (the bank's) are in every document, said or not."""

    def __init__(self, terms: Terms, glossary: Glossary, own_names: Collection[str]) -> None:
        self._terms = terms
        self._glossary = glossary
        self._own = frozenset(topic for name in own_names for topic in terms.topics(name))

    def unknown(self, question: str, passages: Sequence[Passage]) -> float:
        """Return the share in [0, 1] of what the question names that even the passage that says most of it does not."""
        topics = [topic for topic in self._terms.topics(question) if topic not in self._own]
        if not topics or not passages:
            return float(bool(topics))
        return min(self._missing(question, topics, indexed_text(passage)) for passage in passages) / len(topics)

    def _missing(self, question: str, topics: Sequence[str], text: str) -> int:
        plain = text.casefold()
        said = set(self._terms.words(text))
        for word, line in self._glossary.touched(question):
            if any(other.casefold() in plain for other in line):
                said.update(self._terms.topics(word))
        return sum(topic not in said and topic not in plain for topic in topics)
