"""TLS of a connection to another part: one shape for every connection (docs/decisions/0020-one-engine.md)."""

import ssl
from pathlib import Path
from typing import Self

from pydantic import BaseModel, Field, model_validator


class TlsSettings(BaseModel, frozen=True):
    """Files in PEM format; without `ca_file` the system's authorities are trusted."""

    ca_file: Path | None = Field(
        None, description="the authorities that are trusted, a file in PEM format; without it the system's"
    )
    cert_file: Path | None = Field(None, description="this client's certificate, a file in PEM format")
    key_file: Path | None = Field(None, description="the key of that certificate, a file in PEM format")
    verify: bool = Field(default=True, description="whether the server's certificate is checked")

    @model_validator(mode="after")
    def _certificate_with_its_key(self) -> Self:
        if self.key_file is not None and self.cert_file is None:
            raise ValueError("key_file needs the cert_file that it belongs to")
        for path in (self.ca_file, self.cert_file, self.key_file):
            if path is not None and not path.is_file():
                raise ValueError(f"{path} is not a file")
        return self

    @property
    def has_files(self) -> bool:
        """Whether any file is set."""
        return any((self.ca_file, self.cert_file, self.key_file))

    def context(self) -> ssl.SSLContext:
        """Return the client's TLS context.

        Raises:
            ssl.SSLError, OSError: a file cannot be read, or is not in PEM format.
        """
        context = ssl.create_default_context(cafile=self.ca_file)
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.cert_file is not None:
            context.load_cert_chain(self.cert_file, self.key_file)
        return context


def tls_reason(exc: BaseException) -> str:
    """Return why there is no TLS, in OpenSSL's words; empty where that is not what has failed."""
    for cause in (getattr(exc, "certificate_error", None), getattr(exc, "os_error", None), exc.__cause__, exc):
        if isinstance(cause, ssl.SSLError):
            return getattr(cause, "verify_message", "") or getattr(cause, "reason", "") or type(cause).__name__
    return ""
