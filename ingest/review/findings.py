"""Findings in passages, for approvers: personal identifiers, instructions to the model, formulas without values.

They are computed for each review and not stored, because they contain personal data
(docs/decisions/0016-staff-page.md).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from ingest.review.cpu_limiter import Check
from knowledge.passage import MARK, Passage
from knowledge.screening import IdentifierKind, Tactic, find_identifiers, find_injection

FindingKind = Literal["identifier", "instruction", "unstored"]
_MOST_CACHED = 4096  # passages of about 1 KB each


@dataclass(frozen=True, slots=True, kw_only=True)
class PassageFinding:
    """A finding in passage `n`: a personal identifier, an instruction to the model, or formulas.

    `unstored`: formulas of a workbook that have no stored values.
    """

    n: int
    page: int | None
    kind: FindingKind
    name: IdentifierKind | Tactic | Literal["unstored"]
    excerpt: str
    blocks: bool
    """Whether it blocks the version's approval, as decided by the detector."""


def passage_findings(passages: Sequence[Passage], check: Check = lambda: None) -> list[PassageFinding]:
    """Return the findings in passage order; takes about 7 ms per uncached passage."""
    return [finding for passage in passages for finding in _findings_in(passage, check)]


def _findings_in(passage: Passage, check: Check) -> Iterator[PassageFinding]:
    """Yield the findings in the parts of a passage that reach a prompt: title, section and text."""
    check()
    n, page = passage.n, passage.page
    distinct = dict.fromkeys((*_detect(passage.heading), *_detect(passage.text)))
    for name, excerpt, blocks in distinct:
        kind: FindingKind = "identifier" if isinstance(name, IdentifierKind) else "instruction"
        yield PassageFinding(n=n, page=page, kind=kind, name=name, excerpt=excerpt, blocks=blocks)
    for mark in dict.fromkeys(MARK.findall(passage.text)):
        yield PassageFinding(n=n, page=page, kind="unstored", name="unstored", excerpt=mark, blocks=True)


@lru_cache(maxsize=_MOST_CACHED)
def _detect(text: str) -> tuple[tuple[IdentifierKind | Tactic, str, bool], ...]:
    """Return the (name, excerpt, whether it blocks) of each finding in a text."""
    identifiers = [(mark.kind, text[mark.start : mark.end], False) for mark in find_identifiers(text)]
    instructions = [(found.tactic, found.excerpt, found.blocks) for found in find_injection(text)]
    return (*identifiers, *instructions)
