"""The staff side's settings, composed of each part's model; `__main__` reads the environment once."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, Self
from urllib.parse import unquote, urlsplit

from pydantic import Field, PositiveInt, SecretStr, ValidationInfo, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from edge import RedisUrl, ServerTlsSettings, reject_invalid_numbers
from edge.sign_in import OidcSettings
from ingest.parsing import ChunkSettings, ParserSettings
from ingest.services import PipelineSettings
from ingest.uploads import BlobSettings
from knowledge.bank import BankFile
from knowledge.embedding import DEFAULT_FOLDER, EmbedderSettings
from knowledge.identity import AuthSettings
from knowledge.index import IndexSettings, QdrantUrl, ServerSettings
from knowledge.storage import DatabaseUrl, database_connection, s3_address
from knowledge.tls import SYSTEM_TLS, Connection, EncryptedSettings, TlsSettings
from telemetry.logs import LogLevel
from telemetry.setup import TraceSettings

READ_SECONDS = 10.0  # deadline of an index read: no customer is waiting, and a busy disk should not fail a document


class Settings(EncryptedSettings):
    """The settings of every command; `serve` also needs BANK_FILE, AUTH__ISSUER and the issuer's keys."""

    model_config = SettingsConfigDict(
        env_nested_delimiter="__", nested_model_default_partial_update=True, frozen=True, extra="ignore"
    )

    ingest_host: str = Field("127.0.0.1", description="The documents API listens on this address.")
    ingest_port: int = Field(8001, ge=1, le=65535, description="port: The documents API listens on this port.")
    server_tls: ServerTlsSettings = ServerTlsSettings()
    data_dir: Path = Field(Path(".data"), description="Embedded stores, logs and keys are in this folder.")
    weights_dir: Path = Field(
        Path("~/.cache/bank-chatbot/weights"),
        description="Model weights are in this folder, the embedder's too unless EMBEDDER__FOLDER is set.",
    )
    embedder: EmbedderSettings = Field(EmbedderSettings(), validate_default=True)
    bank_file: BankFile | None = Field(
        None,
        description=(
            "A YAML file has the bank's names, logo and colours (docs/bank.md). `serve` needs it for its page."
        ),
    )
    database_url: DatabaseUrl | None = Field(
        None,
        description=(
            "The catalogue and withdrawals are in this SQL database, as "
            "`postgresql+asyncpg://user:password@host/name`. Default: SQLite in the data folder."
        ),
    )
    database_tls: TlsSettings = TlsSettings()
    qdrant_url: QdrantUrl | None = Field(
        None,
        description=(
            "The index is on this Qdrant server (1.19 to 1.21); the default port is 6333. Without it the index is "
            "embedded in the data folder (one process)."
        ),
    )
    qdrant_api_key: SecretStr | None = Field(
        None, description="The Qdrant server is called with this key. It must permit writes."
    )
    qdrant: ServerSettings = ServerSettings()
    blob_url: str | None = Field(
        None,
        description=(
            "Original documents are stored at `file:///path` or `s3://bucket/prefix`. Default: a folder in the "
            "data folder."
        ),
    )
    blob_tls: TlsSettings = TlsSettings()
    redis_url: RedisUrl | None = Field(
        None, description="Redis keeps the sign-in sessions. It is required with OIDC__ISSUER."
    )
    redis_tls: TlsSettings = TlsSettings()
    most_upload_bytes: PositiveInt = Field(100 * 1024 * 1024, description="bytes: Larger documents are rejected.")
    auth: AuthSettings | None = None
    oidc: OidcSettings | None = None
    auth_tls: TlsSettings = TlsSettings()
    log_level: LogLevel = Field("INFO", description="Levels below this one are not logged.")
    log_format: Literal["json", "console"] = Field("json", description="Log lines are written in this format.")
    chunks: ChunkSettings = ChunkSettings()
    parser: ParserSettings = ParserSettings()
    pipeline: PipelineSettings = PipelineSettings()
    traces: TraceSettings = TraceSettings()
    traces_tls: TlsSettings = TlsSettings()

    @field_validator("embedder")
    @classmethod
    def _set_embedder_folder(cls, embedder: EmbedderSettings, info: ValidationInfo) -> EmbedderSettings:
        return embedder.with_folder_in(info.data["weights_dir"])

    @model_validator(mode="after")
    def _check_numbers(self) -> Self:
        reject_invalid_numbers(self)
        return self

    @model_validator(mode="after")
    def _check_blob_url(self) -> Self:
        if self.blob_url is not None and urlsplit(self.blob_url).scheme not in ("", "file", "s3"):
            raise ValueError("BLOB_URL: a folder (file:///path) or an S3-compatible store (s3://bucket/prefix)")
        return self

    @model_validator(mode="after")
    def _check_oidc_issuer(self) -> Self:
        if self.oidc is not None:
            self.oidc.check_issuer(self.auth)
        return self

    @property
    def database(self) -> str:
        """The SQL database: SQLite in the data folder unless DATABASE_URL is set."""
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        return f"sqlite+aiosqlite:///{self.data_dir.resolve() / 'bank.db'}"

    @property
    def blobs(self) -> BlobSettings:
        """The store of originals: BLOB_URL, or else a folder in the data folder."""
        if self.blob_url is not None and urlsplit(self.blob_url).scheme == "s3":
            return BlobSettings(s3_url=self.blob_url, most_bytes=self.most_upload_bytes, tls=self.blob_tls)
        folder = Path(unquote(urlsplit(self.blob_url).path)) if self.blob_url else self.data_dir / "blobs"
        return BlobSettings(folder=folder, most_bytes=self.most_upload_bytes)

    def connections(self) -> Iterator[Connection]:
        """Yield the connection to every dependency (blocking)."""
        yield from self._connections()
        if self.blobs.s3_url is not None:
            yield Connection(part="the originals' bucket", url=s3_address(), setting="BLOB_TLS", tls=self.blob_tls)

    def _connections(self) -> Iterator[Connection]:
        """Yield the connections whose URLs are in these settings."""
        yield database_connection(self.database, self.database_tls)
        redis_url = self.redis_url.get_secret_value() if self.redis_url else None
        oidc_url = self.oidc.issuer if self.oidc else None
        oidc_tls = self.oidc.tls if self.oidc else SYSTEM_TLS
        issuers = self.auth.every_issuer() if self.auth else ()
        for part, url, setting, tls in (
            ("Redis", redis_url, "REDIS_TLS", self.redis_tls),
            ("Qdrant", self.qdrant_url, "QDRANT", self.qdrant),
            ("the embedder", self.embedder.url, "EMBEDDER", self.embedder),
            ("the sign-in provider", oidc_url, "OIDC__TLS", oidc_tls),
            ("the trace collector", self.traces.otlp_endpoint, "TRACES_TLS", self.traces_tls),
            *(("the identity provider", issuer.jwks_url, "AUTH_TLS", self.auth_tls) for issuer in issuers),
        ):
            yield Connection(part=part, url=str(url or ""), setting=setting, tls=tls)

    @property
    def index(self) -> IndexSettings:
        """The passage index: embedded in the data folder unless QDRANT_URL is set."""
        if self.qdrant_url is not None:
            return IndexSettings(
                url=self.qdrant_url, api_key=self.qdrant_api_key, server=self.qdrant, read_timeout=READ_SECONDS
            )
        return IndexSettings(path=self.data_dir / "qdrant", read_timeout=READ_SECONDS)

    @property
    def tokenizer_folder(self) -> Path:
        """The folder of the embedder's tokenizer, which the chunker uses to count tokens."""
        embedder = self.embedder
        return embedder.folder or embedder.tokenizer or self.weights_dir.expanduser() / DEFAULT_FOLDER
