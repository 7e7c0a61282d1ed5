"""The chat API's settings, composed of each part's own model; read from the environment once, in `__main__`.

Nested values use two underscores: `TURN__GROUNDING=numbers`, `LEDGER__LIMITS__USER__TOKENS_PER_MINUTE=20000`.
"""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from chatbot.admission import AdmissionSettings
from chatbot.audit import AuditSettings
from chatbot.conversations import AnswerCacheSettings, HistorySettings
from chatbot.deferred import DeferredSettings
from chatbot.drift import DriftSettings
from chatbot.limits import LedgerSettings, PlansRefused, read_plans
from chatbot.models import ModelSettings, ProfileName
from chatbot.redis_client import RedisSettings
from chatbot.retrieval import RerankerSettings, RetrievalSettings
from chatbot.services import TurnSettings
from chatbot.streams import AnswerLogSettings, AnswerRegistrySettings, IdempotencySettings
from knowledge.embedding import EmbedderSettings
from knowledge.identity import AuthSettings
from knowledge.index import IndexSettings, ServerSettings
from telemetry.setup import TraceSettings

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class Settings(BaseSettings):
    """Everything an operator may decide; what has no default must be set."""

    model_config = SettingsConfigDict(
        env_nested_delimiter="__", nested_model_default_partial_update=True, frozen=True, extra="ignore"
    )

    host: str = "127.0.0.1"
    port: int = Field(8000, ge=1, le=65535)
    data_dir: Path = Path(".data")
    weights_dir: Path = Path("~/.cache/bank-chatbot/weights")
    bank_name_ko: str = "한빛은행"
    bank_name_en: str = "Hanbit Bank"
    redis_url: SecretStr
    ledger_cluster_url: SecretStr | None = None
    qdrant_url: str | None = None
    qdrant_api_key: SecretStr | None = None
    qdrant: ServerSettings = ServerSettings()
    database_url: SecretStr | None = None
    models_file: Path | None = None
    llm_urls: str | None = None
    llm_tokenizer: Path | None = None
    llm_profile: ProfileName = "cpu"
    llm_api_key: SecretStr | None = None
    audit_key: SecretStr
    audit_anchors: str | None = Field(None, pattern=r"^(file:///|s3://).+")
    auth: AuthSettings
    demo_key_file: Path | None = None
    demo_tenant: str = "hanbit"
    drain_seconds: float = 120.0
    refuse_seconds: float = 0.0
    log_level: str = "INFO"
    log_format: Literal["json", "console"] = "json"
    turn: TurnSettings = TurnSettings()
    admission: AdmissionSettings = AdmissionSettings()
    answer_cache: AnswerCacheSettings = AnswerCacheSettings()
    answers: AnswerRegistrySettings = AnswerRegistrySettings()
    answer_log: AnswerLogSettings = AnswerLogSettings()
    deferred: DeferredSettings = DeferredSettings()
    drift: DriftSettings = DriftSettings()
    history: HistorySettings = HistorySettings()
    idempotency: IdempotencySettings = IdempotencySettings()
    ledger: LedgerSettings = LedgerSettings()
    redis: RedisSettings = RedisSettings()
    retrieval: RetrievalSettings = RetrievalSettings()
    reranker: RerankerSettings = RerankerSettings()
    traces: TraceSettings = TraceSettings()
    passage_tokens: int = Field(1000, ge=200, description="prompt tokens that passages may take")

    @model_validator(mode="after")
    def _demo_only_on_loopback(self) -> Self:
        if self.demo_key_file is not None:
            check_demo_host(self.host)
        return self

    @model_validator(mode="after")
    def _plans_can_be_read(self) -> Self:
        if self.ledger.plans_file is not None:
            try:
                read_plans(self.ledger.plans_file, self.ledger)
            except PlansRefused as exc:
                raise ValueError(f"{exc} (LEDGER__PLANS_FILE names it)") from exc
        return self

    @property
    def models(self) -> ModelSettings:
        """The endpoints: MODELS_FILE, or LLM_URLS with LLM_TOKENIZER and LLM_PROFILE."""
        if self.models_file is not None:
            return ModelSettings(models_file=self.models_file)
        return ModelSettings.model_validate(
            {
                "llm_urls": self.llm_urls or (),
                "llm_tokenizer": self.llm_tokenizer,
                "llm_profile": self.llm_profile,
                "llm_api_key": self.llm_api_key,
            }
        )

    @property
    def audit(self) -> AuditSettings:
        """The audit trail's secret."""
        return AuditSettings(key=self.audit_key)

    @property
    def anchors(self) -> str | None:
        """The URL of the audit's anchors: beside the default SQLite unless AUDIT_ANCHORS is set."""
        if self.audit_anchors is None and self.database_url is None:
            return (self.data_dir.resolve() / "anchors").as_uri()
        return self.audit_anchors

    @property
    def database(self) -> str:
        """The SQL database: SQLite in the data folder unless DATABASE_URL is set."""
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        return f"sqlite+aiosqlite:///{self.data_dir.resolve() / 'bank.db'}"

    @property
    def index(self) -> IndexSettings:
        """The passage index: embedded in the data folder unless QDRANT_URL is set."""
        if self.qdrant_url is not None:
            return IndexSettings(url=self.qdrant_url, api_key=self.qdrant_api_key, server=self.qdrant)
        return IndexSettings(path=self.data_dir / "qdrant")

    @property
    def embedder(self) -> EmbedderSettings:
        """The embedding model in the weights folder."""
        return EmbedderSettings(folder=self.weights_dir.expanduser() / "e5-small")


def check_demo_host(host: str) -> None:
    """Allow the demo login on this machine's own address only.

    Raises:
        ValueError: the address is another.
    """
    if host not in LOOPBACK:
        raise ValueError(
            f"DEMO_KEY_FILE lets anybody sign in as anybody, so it is allowed only while bound to loopback, "
            f"and HOST is {host}: unset DEMO_KEY_FILE (with AUTH__ISSUER the product starts without it) "
            f"or set HOST=127.0.0.1"
        )
