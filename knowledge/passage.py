"""A passage: a piece of a document, the unit that is embedded, retrieved, added to prompts and quoted to customers."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import Literal
from uuid import UUID, uuid5

from knowledge.hangul import composed

Language = Literal["ko", "en"]
LANGUAGES: tuple[Language, ...] = ("ko", "en")

UNSTORED = "⟦수식의 값이 파일에 없음: "
"""The beginning of a mark (its end is `⟧`) for cells whose values the workbook lacks; the mark prevents an approval."""
MARK = re.compile(f"{re.escape(UNSTORED)}[^⟦⟧]{{1,80}}⟧")

_POINTS = UUID("6f1de44b-9a0e-5c57-8a6b-0e2c5f0f7a11")


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """One passage of one version of a document; `n` is its number in the version.

    It is visible from `visible_from` until before `visible_until` (Unix seconds; None: without end). Without
    `visible_from` the version is a draft, which no search returns. `readers` are group names; an empty tuple matches no
    caller. `link` is the URL of the bank's public page about the document.
    """

    tenant: str
    document_id: str
    version: int
    n: int
    title: str
    section: str
    page: int | None
    text: str
    language: Language
    product: str | None
    readers: tuple[str, ...]
    link: str | None = None
    effective_from: date | None = None  # the first day, which citations show
    visible_from: float | None = None
    visible_until: float | None = None

    @property
    def heading(self) -> str:
        """Return the title and the section, without repeating the title if the section begins with it."""
        below = self.section.removeprefix(self.title).removeprefix(" > ")
        return f"{self.title} > {below}" if below else self.title

    def has_ended(self, now: float) -> bool:
        """Return whether the visible interval has ended at `now` (Unix seconds)."""
        return self.visible_until is not None and self.visible_until <= now

    @property
    def point_id(self) -> str:
        """Return the UUIDv5 of (tenant, document, version, n), which makes writes idempotent."""
        return str(uuid5(_POINTS, f"{self.tenant}/{self.document_id}/{self.version}/{self.n}"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A passage found for a question.

    `score` is the fused score that orders hits. `dense` is the cosine similarity in [-1, 1]. `terms` is the BM25 score
    divided by the weight of a term in a single passage, which makes it comparable between collections of any size (0 if
    no term matches). Answerability is computed from `dense` and `terms`.
    """

    passage: Passage
    score: float
    dense: float
    terms: float
    collection: str = ""
    """The searched collection; a re-index may switch to another at any time."""


def instant(seconds: float) -> float:
    """Round Unix seconds to microseconds, which the engine stores and compares exactly.

    Its JSON parser may change the last bit of a longer number, so that a version would not be visible at its instant.
    """
    return round(seconds, 6)


def language_of(text: str) -> Language:
    """Return "ko" when at least a fifth of the letters are Hangul, else "en"."""
    letters = [c for c in composed(text) if c.isalpha()]
    hangul = sum("가" <= c <= "힣" or "ㄱ" <= c <= "ㆎ" for c in letters)
    return "ko" if letters and hangul * 5 >= len(letters) else "en"


_MOST_WORDS_UNDECIDED = 3


def language_in(questions: Iterable[str]) -> Language:
    """Return the language of a conversation's last question; `questions` are oldest first.

    A few words without Hangul ("IRP?", "USD 500", "ok") take the language of the previous question.
    """
    language: Language | None = None
    for question in questions:
        own = language_of(question)
        is_undecided = own == "en" and len(question.split()) <= _MOST_WORDS_UNDECIDED
        if language is None or not is_undecided:
            language = own
    return language or "en"
