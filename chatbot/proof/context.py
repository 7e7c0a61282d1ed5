"""What an answer can be replayed from, and what a replay tells of it."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from chatbot.audit import Audit, Closed, Opened, Versions
from chatbot.conversations import History
from chatbot.models import Models
from chatbot.prompt import PromptBuilder
from chatbot.services import Services
from knowledge.glossary import Glossary
from knowledge.index import Index

What = Literal[
    "rows", "question", "passages", "prompt", "screening", "answer", "grounded", "probes", "model", "shown", "repair"
]


class ReplayStanding(StrEnum):
    """How a thing stands that an answer was made of."""

    SAME = "same"
    DIFFERS = "differs"
    GONE = "gone"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class ReplayFinding:
    """One thing, how it stands now, and a sentence."""

    what: What
    standing: ReplayStanding
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """The rows of an answer, what would make it now, and what is the same."""

    answer_id: str
    opened: Opened | None
    closed: Closed | None
    now: Versions
    findings: tuple[ReplayFinding, ...]

    @property
    def differs(self) -> bool:
        """Whether anything that could be compared is not what it was."""
        return any(finding.standing is ReplayStanding.DIFFERS for finding in self.findings)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayContext:
    """What an answer can be replayed from; without `models` no model can be asked."""

    audit: Audit
    history: History
    index: Index
    prompts: PromptBuilder
    contact: str
    glossary: Glossary
    models: Models | None = None
    cache_salt: str = "replay"

    @classmethod
    def of(cls, services: Services) -> "ReplayContext":
        """Return what a running chat API has."""
        return cls(
            audit=services.audit,
            history=services.history,
            index=services.index,
            prompts=services.prompts,
            contact=services.settings.contact,
            glossary=services.retrieval.glossary,
            models=services.models,
        )

    @property
    def versions(self) -> Versions:
        """What would make an answer now."""
        return Versions(
            model=self.models.model if self.models else "",
            prompt=self.prompts.version,
            index=self.index.collection,
            embedder=self.index.embedder,
        )
