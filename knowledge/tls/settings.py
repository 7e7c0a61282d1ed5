"""The TLS settings shared by every connection to another component."""

import ssl
from pathlib import Path
from typing import Any, Final, Self

from pydantic import BaseModel, Field, ValidationInfo, field_validator, model_validator


class TlsFiles(BaseModel, frozen=True):
    """TLS files in PEM format; without `ca_file` the system's authorities are trusted."""

    ca_file: Path | None = Field(
        None, description="Servers need a certificate of these authorities (PEM file). Default: the system's."
    )
    cert_file: Path | None = Field(None, description="The client certificate (PEM file).")
    key_file: Path | None = Field(None, description="The private key of the client certificate (PEM file).")

    @field_validator("ca_file", "cert_file", "key_file")
    @classmethod
    def _can_be_read(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        if path is not None:
            if not path.is_file():
                raise ValueError(f"{path} is not a file")
            try:
                path.open("rb").close()
                if info.field_name == "ca_file":
                    ssl.create_default_context(cafile=path)
            except ssl.SSLError as exc:
                raise ValueError(f"{path} holds no certificate in PEM format") from exc
            except OSError as exc:
                raise ValueError(f"{path} cannot be read ({exc.strerror})") from exc
        return path

    @model_validator(mode="after")
    def _certificate_with_its_key(self) -> Self:
        if self.key_file is not None and self.cert_file is None:
            raise ValueError("key_file needs the cert_file that it belongs to")
        if self.cert_file is not None:
            try:
                load_certificate(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), self.cert_file, self.key_file)
            except ssl.SSLError as exc:
                files = self.cert_file if self.key_file is None else f"{self.cert_file} with {self.key_file}"
                raise ValueError(f"{files} is not a certificate with its key ({tls_reason(exc)})") from exc
        return self


class TlsSettings(TlsFiles, frozen=True):
    """The TLS settings of one connection; the server's certificate is always verified."""

    def with_defaults(self, default: TlsFiles) -> Self:
        """Return these settings with missing files taken from `default`."""
        files: dict[str, Path | None] = {"ca_file": self.ca_file or default.ca_file}
        if self.cert_file is None:
            files |= {"cert_file": default.cert_file, "key_file": default.key_file}
        return self.model_copy(update=files)

    def context(self) -> ssl.SSLContext:
        """Return the client's TLS context (blocking): TLS 1.2 or later.

        Raises:
            ssl.SSLError, OSError: a file cannot be read or is not in PEM format.
        """
        context = ssl.create_default_context(cafile=self.ca_file)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.cert_file is not None:
            load_certificate(context, self.cert_file, self.key_file)
        return context

    def redis_options(self, url: str) -> dict[str, Any]:
        """Return redis-py's options, empty unless the URL is `rediss://`; the system's authorities are trusted too."""
        if not url.startswith("rediss:"):
            return {}
        return {
            "ssl_ca_certs": str(self.ca_file) if self.ca_file else None,
            "ssl_certfile": str(self.cert_file) if self.cert_file else None,
            "ssl_keyfile": str(self.key_file) if self.key_file else None,
            "ssl_cert_reqs": "required",
            "ssl_check_hostname": True,
            "ssl_min_version": ssl.TLSVersion.TLSv1_2,
        }


SYSTEM_TLS: Final = TlsSettings()
"""The system's authorities and no client certificate."""


def load_certificate(context: ssl.SSLContext, cert_file: Path, key_file: Path | None) -> None:
    """Load a certificate into a context (blocking); an encrypted key fails instead of prompting for a password.

    Raises:
        ssl.SSLError, OSError: the files cannot be read or are not a certificate with its key.
    """
    context.load_cert_chain(cert_file, key_file, password="")


def tls_reason(exc: BaseException) -> str:
    """Return OpenSSL's reason for a TLS failure; empty for any other exception."""
    # aiohttp wraps the error as `certificate_error` or `os_error`.
    for cause in (getattr(exc, "certificate_error", None), getattr(exc, "os_error", None), exc.__cause__, exc):
        if isinstance(cause, ssl.SSLError):
            return getattr(cause, "verify_message", "") or getattr(cause, "reason", "") or type(cause).__name__
    return ""
