"""The services that a replay uses, and its result."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from chatbot.audit import Audit, Closed, Opened, Versions
from chatbot.conversations import History
from chatbot.prompt import PromptBuilder
from chatbot.services import Services
from knowledge.bank import Banks
from knowledge.index import Index

Subject = Literal["rows", "question", "passages", "prompt", "screening", "answer", "grounded"]


class ReplayStanding(StrEnum):
    """The result of comparing a part of an answer with its audit rows; `GONE`: the part is no longer available."""

    SAME = "same"
    DIFFERS = "differs"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class ReplayFinding:
    """The comparison of one part of an answer, explained in a sentence."""

    what: Subject
    standing: ReplayStanding
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """The result of a replay: the answer's rows, the current versions, and the findings; also sent as JSON."""

    answer_id: str
    opened: Opened | None
    closed: Closed | None
    current_versions: Versions
    findings: tuple[ReplayFinding, ...]

    @property
    def differs(self) -> bool:
        """Whether any part differs."""
        return any(finding.standing is ReplayStanding.DIFFERS for finding in self.findings)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayContext:
    """The services that a replay uses, and the versions in use now."""

    audit: Audit
    history: History
    index: Index
    prompts: PromptBuilder
    banks: Banks
    versions: Versions

    @classmethod
    def of(cls, services: Services) -> "ReplayContext":
        """Return the context from a running chat API's services."""
        return cls(
            audit=services.audit,
            history=services.history,
            index=services.index,
            prompts=services.prompts,
            banks=services.banks,
            versions=services.versions,
        )
