"""Settings of the index: its place, its deadlines, the replication on a server, and the fusion of scores."""

from pathlib import Path
from typing import Annotated, Final, Self
from urllib.parse import urlsplit

from pydantic import AnyHttpUrl, BaseModel, BeforeValidator, Field, PositiveFloat, SecretStr, model_validator

from knowledge.index.fusion import FusionSettings
from knowledge.tls import TlsSettings

QDRANT_PORT: Final = 6333


def _with_port(url: object) -> object:
    """Return the URL, with Qdrant's port if it has none."""
    if not isinstance(url, str):
        return url
    parts = urlsplit(url)
    if not parts.hostname or parts.port is not None:
        return url
    return parts._replace(netloc=f"{parts.netloc.rstrip(':')}:{QDRANT_PORT}").geturl()


QdrantUrl = Annotated[AnyHttpUrl, BeforeValidator(_with_port)]
"""The address of a Qdrant server; the default port is 6333, not the scheme's 80 or 443."""


class ServerSettings(TlsSettings, frozen=True):
    """The TLS files for a Qdrant server, and the replication of new collections.

    An existing collection keeps its shards and replicas until the next `ingest reindex`.
    """

    shards: int = Field(
        1, gt=0, description="shards: A collection is split into this many parts over the server's nodes."
    )
    replicas: int = Field(1, gt=0, description="copies: The server keeps this many copies of each shard.")


class IndexSettings(BaseModel, frozen=True):
    """Either the `url` of a Qdrant server or the `path` of an embedded one, which only one process may open."""

    url: QdrantUrl | None = None
    path: Path | None = None
    api_key: SecretStr | None = None
    server: ServerSettings = ServerSettings()
    alias: str = "kb"
    read_timeout: PositiveFloat = Field(2.0, description="seconds: A read has this deadline.")
    write_timeout: PositiveFloat = Field(30.0, description="seconds: A write has this deadline.")
    write_batch: int = Field(64, gt=0, description="One write has this many points.")
    fusion: FusionSettings = FusionSettings()

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.url is None) == (self.path is None):
            raise ValueError("set either the index's url or its path")
        return self
