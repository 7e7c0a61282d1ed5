"""The services that an answer uses, opened once by `wiring.py`, so that `turns` depends on no driver."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import BaseModel, Field

from chatbot.admission import Admission
from chatbot.answerability import AnswerabilitySettings, AnswerabilityWeights
from chatbot.audit import Audit, Versions
from chatbot.conversations import ConversationIds, History, Ratings
from chatbot.deferred import DeferredWrites
from chatbot.limits import Ledger
from chatbot.metrics import Metrics
from chatbot.models import Models
from chatbot.prompt import PromptBuilder
from chatbot.reads import Reads
from chatbot.retrieval import Retrieval
from chatbot.screener import Screener
from chatbot.streams import AnswerLog, Answers, IdempotencyKeys
from edge.sign_in import SignIn
from knowledge.bank import Banks
from knowledge.identity import Authenticator
from knowledge.index import Index
from knowledge.profiles import AnswerMode
from knowledge.service_keys import ServiceKeys
from knowledge.withdrawals import Withdrawals
from telemetry.siem import Siem


class TurnSettings(BaseModel, frozen=True):
    """Whose words an answer consists of, its length in tokens, and its deadlines in seconds."""

    answer: AnswerMode | None = Field(
        None,
        description=(
            "Answers quote the bank's own words (`quote`) or show a model's checked words (`written`). Default: "
            "the primary model's profile decides."
        ),
    )
    answerability: AnswerabilitySettings = AnswerabilitySettings()
    temperature: float = Field(0.0, description="ratio: First answers are sampled at this temperature.")
    regeneration_temperature: ClassVar[float] = 0.4  # ratio: at 0 a regenerated answer would repeat the first one
    max_answer_tokens: int = Field(
        400, description="tokens: An answer has at most this length if the caller names none."
    )
    most_answer_tokens: int = Field(2000, description="tokens: A caller may ask for at most this length.")
    thinking_tokens: Annotated[int, Field(gt=0)] = Field(
        1000,
        description=(
            "tokens: A reasoning model may use this many tokens for thinking. Then the answer ends and names a "
            "person to contact."
        ),
    )
    extension_tokens: ClassVar[int] = 128  # tokens: each extension of a reservation that an answer has used up
    history_tokens: ClassVar[int] = 500  # tokens: earlier messages in the prompt
    longest_answer: float = Field(
        600.0, description="seconds: An answer's reservation, and its stream after SIGTERM, end after this time."
    )
    finish_timeout: ClassVar[float] = 5.0  # seconds: the deadline of recording an answer's end

    def answer_token_limit(self, requested: int | None) -> int:
        """Return the token limit of an answer; `requested` is the caller's limit, or None."""
        return self.max_answer_tokens if requested is None else min(requested, self.most_answer_tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The services of turns, routes and readiness probes."""

    settings: TurnSettings
    chooses_answer: bool
    """Whether callers may choose quoted or written answers: only with `make run`."""
    authenticator: Authenticator
    admission: Admission
    answers: Answers
    answer_log: AnswerLog
    audit: Audit
    banks: Banks
    conversation_ids: ConversationIds
    deferred: DeferredWrites
    history: History
    idempotency: IdempotencyKeys
    index: Index
    ledger: Ledger
    metrics: Metrics
    models: Models
    prompts: PromptBuilder
    ratings: Ratings
    reads: Reads
    retrieval: Retrieval
    screener: Screener
    service_keys: ServiceKeys
    siem: Siem
    sign_in: SignIn | None
    withdrawals: Withdrawals
    answerability: Callable[[], AnswerabilityWeights]
    """Returns the weights for the served embedder, model and probe."""
    cache_salt: Callable[[str], str]
    """Returns a tenant's salt for vLLM's prefix cache: unguessable, so no tenant can probe another's questions."""
    now: Callable[[], float]
    """Returns Unix seconds."""
    pings: Mapping[str, Callable[[], Awaitable[None]]]
    """The readiness probe of each dependency by its name in `/readyz`."""

    @property
    def versions(self) -> Versions:
        """The versions of the model, prompt, index and embedder in use."""
        return Versions(
            model=self.models.model,
            prompt=self.prompts.version,
            index=self.index.collection,
            embedder=self.index.embedder,
        )
