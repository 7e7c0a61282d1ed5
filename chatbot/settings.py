"""The chat API's settings, composed of the other modules' settings; read from the environment once, in `__main__`.

Nested values use two underscores: `TURN__ANSWER=written`, `LEDGER__LIMITS__USER__TOKENS_PER_MINUTE=20000`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, JsonValue, SecretStr, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from chatbot.admission import AdmissionSettings
from chatbot.audit import AuditSettings
from chatbot.conversations import HistorySettings
from chatbot.deferred import DeferredSettings
from chatbot.limits import LedgerSettings
from chatbot.models import ModelSettings, ModelsMisconfigured, ProfileName
from chatbot.reads import ReadSettings
from chatbot.redis_client import RedisBreakerSettings
from chatbot.retrieval import RerankerSettings
from chatbot.services import TurnSettings
from chatbot.streams import AnswerLogSettings, AnswerSettings, IdempotencySettings
from edge import RedisUrl, ServerTlsSettings, reject_invalid_numbers, wrong_settings
from edge.sign_in import OidcSettings
from knowledge.bank import BankFile
from knowledge.embedding import EmbedderSettings
from knowledge.identity import DEMO_TENANT, AuthSettings
from knowledge.index import IndexSettings, QdrantUrl, ServerSettings
from knowledge.service_keys import ServiceKeySettings
from knowledge.storage import DatabaseUrl, database_connection, s3_address
from knowledge.tls import SYSTEM_TLS, Connection, EncryptedSettings, TlsSettings
from telemetry.logs import LogLevel
from telemetry.setup import TraceSettings

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class CommandSettings(EncryptedSettings):
    """The settings of the commands that change SQL and serve nothing: `migrate`, `stop`, `resume` and `keys`."""

    model_config = SettingsConfigDict(
        env_nested_delimiter="__", nested_model_default_partial_update=True, frozen=True, extra="ignore"
    )

    data_dir: Path = Field(Path(".data"), description="Embedded stores, logs and keys are in this folder.")
    database_url: DatabaseUrl | None = Field(
        None,
        description=(
            "Audit and withdrawals are in this SQL database, as `postgresql+asyncpg://user:password@host/name`. "
            "Default: SQLite in the data folder."
        ),
    )
    database_tls: TlsSettings = TlsSettings()
    models_file: Path | None = Field(
        None, description="A YAML file lists endpoint groups with `name, urls, group, weight, model, profile`."
    )
    llm_urls: str | None = Field(
        None,
        description="These addresses, separated by commas, are one endpoint group, instead of a models file.",
    )
    llm_model: str | None = Field(None, description="Requests name this model. Default: the first of `/v1/models`.")
    llm_tokenizer: Path | None = Field(
        None,
        description=(
            "The model's `tokenizer.json`, or its folder, counts tokens if the server has no `/tokenize`. Without"
            " either, tokens are estimated."
        ),
    )
    llm_profile: ProfileName = Field(
        "hosted",
        description="The deadlines of these endpoints come from this profile: a name, or the path of a .yaml file.",
    )
    llm_api_key: SecretStr | None = Field(
        None,
        description="The endpoints in LLM_URLS are called with this key.",
    )
    llm_tls: TlsSettings = TlsSettings()
    llm_chat_template_kwargs: dict[str, JsonValue] = Field(
        {},
        description=(
            'The chat template gets these arguments, as JSON. `{"enable_thinking": false}` stops many reasoning '
            "models from thinking."
        ),
    )
    service_keys: ServiceKeySettings = ServiceKeySettings()
    traces: TraceSettings = TraceSettings()
    traces_tls: TlsSettings = TlsSettings()

    @model_validator(mode="after")
    def _has_valid_numbers(self) -> Self:
        reject_invalid_numbers(self)
        return self

    @property
    def models(self) -> ModelSettings:
        """The model endpoints from MODELS_FILE or LLM_URLS.

        Raises:
            ModelsMisconfigured: neither is set, or LLM_URLS has an invalid URL.
        """
        if self.models_file is not None:
            return ModelSettings(models_file=self.models_file, tls=self.tls)
        try:
            return ModelSettings.model_validate(
                {
                    "llm_urls": self.llm_urls or (),
                    "llm_model": self.llm_model,
                    "llm_tokenizer": self.llm_tokenizer,
                    "llm_profile": self.llm_profile,
                    "llm_api_key": self.llm_api_key,
                    "llm_tls": self.llm_tls,
                    "llm_chat_template_kwargs": self.llm_chat_template_kwargs,
                }
            )
        except ValidationError as exc:
            raise ModelsMisconfigured("; ".join(wrong_settings(exc, ModelSettings, {}))) from exc

    @property
    def database(self) -> str:
        """The SQL database: SQLite in the data folder unless DATABASE_URL is set."""
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        return f"sqlite+aiosqlite:///{self.data_dir.resolve() / 'bank.db'}"

    def _connections(self) -> Iterator[Connection]:
        """Yield the connections whose URLs are in these settings."""
        yield database_connection(self.database, self.database_tls)
        collector = str(self.traces.otlp_endpoint or "")
        yield Connection(part="the trace collector", url=collector, setting="TRACES_TLS", tls=self.traces_tls)


class AuditCommandSettings(CommandSettings):
    """The settings of the commands that verify and prune the audit trail."""

    audit_key: SecretStr = Field(
        min_length=16, description="The audit rows are chained with this secret. `make run` creates one."
    )
    audit_anchors: str | None = Field(
        None,
        pattern=r"^(file:///|s3://).+",
        description=(
            "The heads of the audit chains are written here daily, out of reach of database administrators. "
            "Default without DATABASE_URL: `anchors` in DATA_DIR."
        ),
    )
    audit_anchors_tls: TlsSettings = TlsSettings()
    audit_kept_days: int | None = Field(
        None,
        ge=1,
        description="days: `chatbot audit prune` removes chains whose last row and anchor are older. Unset keeps all.",
    )

    @property
    def audit(self) -> AuditSettings:
        """The settings of the audit trail."""
        return AuditSettings(key=self.audit_key)

    def audit_kept_since(self, now: float) -> float:
        """Return the time (Unix seconds) before which audit rows may be pruned; 0 if they are kept permanently."""
        return 0.0 if self.audit_kept_days is None else now - self.audit_kept_days * 86_400

    @property
    def anchors(self) -> str | None:
        """The URL of the anchors: AUDIT_ANCHORS, else a folder beside the default SQLite, else None."""
        if self.audit_anchors is None and self.database_url is None:
            return (self.data_dir.resolve() / "anchors").as_uri()
        return self.audit_anchors


class Settings(AuditCommandSettings):
    """All settings of the chat API; a setting without a default is required."""

    host: str = Field("127.0.0.1", description="The chat API listens on this address.")
    port: int = Field(8000, ge=1, le=65535, description="port: The chat API listens on this port.")
    weights_dir: Path = Field(
        Path("~/.cache/bank-chatbot/weights"),
        description="Model weights are in this folder, the embedder's too unless EMBEDDER__FOLDER is set.",
    )
    embedder: EmbedderSettings = Field(EmbedderSettings(), validate_default=True)
    bank_file: BankFile = Field(
        description=(
            "A YAML file has the bank's names, telephone, logo, colours, texts, helplines and glossary "
            "(docs/bank.md). `make run` uses a sample bank."
        )
    )
    redis_url: RedisUrl = Field(
        description="Redis keeps history, answer logs and the token ledger. `make run` starts one."
    )
    redis_tls: TlsSettings = TlsSettings()
    qdrant_url: QdrantUrl | None = Field(
        None,
        description=(
            "The index is on this Qdrant server (1.19 to 1.21); the default port is 6333. Without it the index is "
            "embedded in the data folder (one process)."
        ),
    )
    qdrant_api_key: SecretStr | None = Field(
        None, description="The Qdrant server is called with this key. A read-only key is enough."
    )
    qdrant: ServerSettings = ServerSettings()
    calibration_file: Path | None = Field(
        None,
        description=(
            "A YAML file has fitted values and the embedder, models and probe they belong to. Default: the file "
            "for the model of `make run`."
        ),
    )
    auth: AuthSettings
    oidc: OidcSettings | None = None
    auth_tls: TlsSettings = TlsSettings()
    server_tls: ServerTlsSettings = ServerTlsSettings()
    admin_port: int | None = Field(
        None,
        ge=1,
        le=65535,
        description="port: Admin routes (`/v1/admin/…`) are served on this port of HOST. Default: PORT.",
    )
    demo_key_file: Path | None = Field(
        None, description="Anybody can sign in with tokens signed by this key. It is rejected unless HOST is loopback."
    )
    demo_tenant: str = Field(DEMO_TENANT, description="Demo users are customers of this bank.")
    drain_seconds: float = Field(
        120.0,
        description="seconds: Running answers may continue this long after SIGTERM; then other replicas continue them.",
    )
    refuse_seconds: float = Field(
        0.0,
        description=(
            "seconds: After SIGTERM questions are rejected for at least this long, until load balancers that read "
            "`/readyz` have noticed. Use 0 if something else waits before SIGTERM."
        ),
    )
    log_level: LogLevel = Field("INFO", description="Levels below this one are not logged.")
    log_format: Literal["json", "console"] = Field("json", description="Log lines are written in this format.")
    turn: TurnSettings = TurnSettings()
    admission: AdmissionSettings = AdmissionSettings()
    answers: AnswerSettings = AnswerSettings()
    answer_log: AnswerLogSettings = AnswerLogSettings()
    deferred: DeferredSettings = DeferredSettings()
    history: HistorySettings = HistorySettings()
    idempotency: IdempotencySettings = IdempotencySettings()
    ledger: LedgerSettings = LedgerSettings()
    reads: ReadSettings = ReadSettings()
    redis: RedisBreakerSettings = RedisBreakerSettings()
    reranker: RerankerSettings = RerankerSettings()
    passage_tokens: int = Field(1000, ge=200, description="tokens: Passages take at most this much of the prompt.")

    @field_validator("embedder")
    @classmethod
    def _default_embedder_folder(cls, embedder: EmbedderSettings, info: ValidationInfo) -> EmbedderSettings:
        return embedder.with_folder_in(info.data["weights_dir"])

    @model_validator(mode="after")
    def _demo_only_on_loopback(self) -> Self:
        if self.demo_key_file is not None:
            check_demo_host(self.host)
        return self

    @model_validator(mode="after")
    def _provider_tokens_are_accepted(self) -> Self:
        if self.oidc is not None:
            self.oidc.check_issuer(self.auth)
        return self

    def connections(self) -> Iterator[Connection]:
        """Yield the connection to each dependency (blocking).

        Raises:
            ModelsMisconfigured: the MODELS_FILE cannot be read.
        """
        yield from self._connections()
        for entry in self.models.read().root:
            where = "LLM_TLS" if self.models_file is None else f"{entry.name} in MODELS_FILE"
            for url in entry.urls:
                yield Connection(part=f"the model {entry.name}", url=str(url), setting=where, tls=entry)
        if self.anchors is not None and self.anchors.startswith("s3://"):
            tls = self.audit_anchors_tls
            yield Connection(part="the anchors' bucket", url=s3_address(), setting="AUDIT_ANCHORS_TLS", tls=tls)

    def _connections(self) -> Iterator[Connection]:
        """Yield the connections whose URLs are in these settings."""
        yield from super()._connections()
        provider_url, provider_tls = (self.oidc.issuer, self.oidc.tls) if self.oidc else (None, SYSTEM_TLS)
        for part, url, setting, tls in (
            ("Redis", self.redis_url.get_secret_value(), "REDIS_TLS", self.redis_tls),
            ("Qdrant", self.qdrant_url, "QDRANT", self.qdrant),
            ("the embedder", self.embedder.url, "EMBEDDER", self.embedder),
            ("the reranker", self.reranker.url, "RERANKER", self.reranker),
            ("the sign-in provider", provider_url, "OIDC__TLS", provider_tls),
            *(
                ("the identity provider", issuer.jwks_url, "AUTH_TLS", self.auth_tls)
                for issuer in self.auth.every_issuer()
            ),
        ):
            yield Connection(part=part, url=str(url or ""), setting=setting, tls=tls)

    @property
    def index(self) -> IndexSettings:
        """The passage index, embedded in the data folder unless QDRANT_URL is set."""
        if self.qdrant_url is not None:
            return IndexSettings(url=self.qdrant_url, api_key=self.qdrant_api_key, server=self.qdrant)
        return IndexSettings(path=self.data_dir / "qdrant")


def check_demo_host(host: str) -> None:
    """Allow the demo login only on a loopback address.

    Raises:
        ValueError: `host` is another address.
    """
    if host not in LOOPBACK:
        raise ValueError(
            f"DEMO_KEY_FILE lets anybody sign in as anybody, so it is allowed only while bound to loopback, "
            f"and HOST is {host}: unset DEMO_KEY_FILE (with AUTH__ISSUER the product starts without it) "
            f"or set HOST=127.0.0.1"
        )
