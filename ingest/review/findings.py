"""What an approver should look at twice: personal identifiers and text that instructs the model (pure).

Found anew whenever somebody looks, by the detectors of that day, so that nothing personal is stored a second time
(docs/decisions/0016-staff-page.md).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from knowledge.passage import Passage
from knowledge.screening import IdentifierKind, Tactic, find_identifiers, find_injection

BLOCKING = frozenset({Tactic.OVERRIDE, Tactic.EXTRACTION, Tactic.ROLE_MARKER, Tactic.HIDDEN})
"""What a bank's own text never says: it blocks approval. The others it may: a warning names passwords, a form has
placeholders.
"""

_REMEMBERED = 4096  # passages of about 1 KB


@dataclass(frozen=True, slots=True, kw_only=True)
class PassageFinding:
    """A passage's words that look like an identifier of a person, or like an instruction to the model."""

    n: int
    page: int | None
    kind: Literal["identifier", "instruction"]
    name: IdentifierKind | Tactic
    excerpt: str

    @property
    def blocks(self) -> bool:
        """Whether the version cannot be approved with it."""
        return self.name in BLOCKING


def passage_findings(passages: Sequence[Passage]) -> list[PassageFinding]:
    """Return what was found, in the passages' order; about 7 ms a passage that nobody looked at before."""
    return [found for passage in passages for found in _of_passage(passage.n, passage.page, passage.text)]


def _of_passage(n: int, page: int | None, text: str) -> Iterator[PassageFinding]:
    for name, excerpt in _found(text):
        kind: Literal["identifier", "instruction"] = "identifier" if isinstance(name, IdentifierKind) else "instruction"
        yield PassageFinding(n=n, page=page, kind=kind, name=name, excerpt=excerpt)


@lru_cache(maxsize=_REMEMBERED)
def _found(text: str) -> tuple[tuple[IdentifierKind | Tactic, str], ...]:
    identifiers = [(found.kind, text[found.start : found.end]) for found in find_identifiers(text)]
    return (*identifiers, *((found.trick, found.excerpt) for found in find_injection(text)))
