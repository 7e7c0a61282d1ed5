"""Checks once, at startup, that a TLS handshake succeeds with every component that has an encrypted connection.

A component that is away does not prevent a start. A component that answers prevents it if TLS fails, because the cause
is permanent: a certificate of another authority or for another name, plain text, or an invalid file of ours.
"""

import socket
import ssl
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol, Self, runtime_checkable
from urllib.parse import urlsplit

import anyio
from pydantic import ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings

from knowledge.tls.settings import TlsFiles, TlsSettings

_SECONDS = 2.0
_ALL_SECONDS = 5.0
_ALERT_SECONDS = 0.2
"""The wait for an alert: a TLS 1.3 server rejects a client's certificate after the handshake."""
_PORTS = {"https": 443, "rediss": 6379, "postgresql": 5432}
_POSTGRES_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"
"""PostgreSQL's SSLRequest; the answer is S or N."""
_PLAIN_TEXT_REASONS = frozenset(
    {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"}
)
_PLAIN_TEXT = "it speaks plain text: enable TLS there, or write a URL without TLS"


class TlsRefused(Exception):
    """TLS failed; the message has a sentence per component with the cause and the setting to change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """The connection to the component `part`; `setting` is the prefix of its TLS settings, or describes their place."""

    part: str
    url: str
    setting: str
    tls: TlsSettings

    @property
    def is_encrypted(self) -> bool:
        """Whether the URL's scheme requires TLS."""
        return urlsplit(self.url).scheme in _PORTS

    def setting_name(self, field: str) -> str:
        """Return the name of a TLS setting, for error messages."""
        return f"{self.setting}__{field.upper()}" if self.setting.isupper() else f"`{field}` of {self.setting}"

    def refuse_unused(self, default: TlsFiles) -> None:
        """Reject TLS files that are set for this connection while its URL uses plain text.

        Raises:
            ValueError: a file is set, but the URL uses plain text.
        """
        for field in TlsFiles.model_fields:
            own = getattr(self.tls, field)
            if own is not None and own != getattr(default, field) and not self.is_encrypted:
                raise ValueError(f"{self.setting_name(field)} is set, but the URL of {self.part} asks for plain text")


@runtime_checkable
class _Encrypted(Protocol):
    """Settings that inherit the default TLS files."""

    def with_defaults(self, default: TlsFiles) -> Self: ...


class EncryptedSettings(BaseSettings):
    """The settings of a service; each connection has its own TLS files or inherits those in `tls`."""

    tls: TlsFiles = TlsFiles()

    @field_validator("*")
    @classmethod
    def _inherits_files(cls, value: object, info: ValidationInfo) -> object:
        return value.with_defaults(info.data.get("tls", TlsFiles())) if isinstance(value, _Encrypted) else value

    @model_validator(mode="after")
    def _files_are_used(self) -> Self:
        for connection in self._connections():
            connection.refuse_unused(self.tls)
        return self

    def _connections(self) -> Iterator[Connection]:
        """Yield the connections whose URLs are in these settings."""
        raise NotImplementedError


async def check_connections(connections: Callable[[], Iterable[Connection]]) -> None:
    """Try every encrypted connection that `connections` (which may block) returns, concurrently and within 5 s.

    Raises:
        TlsRefused: a component answers, but TLS fails.
    """
    encrypted = await anyio.to_thread.run_sync(lambda: [each for each in connections() if each.is_encrypted])
    failures = [""] * len(encrypted)

    async def check(n: int) -> None:
        failures[n] = await anyio.to_thread.run_sync(_tls_failure, encrypted[n], abandon_on_cancel=True)

    with anyio.move_on_after(_ALL_SECONDS):  # DNS timeouts take longer
        async with anyio.create_task_group() as tasks:
            for n in range(len(encrypted)):
                tasks.start_soon(check, n)
    if any(failures):
        raise TlsRefused("; ".join(failure for failure in failures if failure))


def _tls_failure(connection: Connection) -> str:
    """Return a sentence with the cause of a TLS failure; empty if TLS succeeds or the component is away."""
    parts = urlsplit(connection.url)
    host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
    beginning = f"no TLS with {connection.part} ({host}:{port}): "
    context = connection.tls.context()
    try:
        wire = socket.create_connection((host, port), timeout=_SECONDS)
    except OSError:
        return ""
    with wire:
        try:
            if parts.scheme == "postgresql":
                wire.sendall(_POSTGRES_REQUEST)
                if wire.recv(1) == b"N":
                    return f"{beginning}{_PLAIN_TEXT}"
            with context.wrap_socket(wire, server_hostname=host) as encrypted:
                encrypted.settimeout(_ALERT_SECONDS)
                encrypted.recv(1)
        except ssl.SSLCertVerificationError as exc:
            return (
                f"{beginning}its certificate is refused ({exc.verify_message}): renew it, write its name in the URL, "
                f"or set {connection.setting_name('ca_file')} to the file of its authority"
            )
        except ssl.SSLError as exc:
            is_away = isinstance(exc, ssl.SSLEOFError)  # the connection was closed
            return "" if is_away else beginning + _handshake_failure(exc, connection)
        except TimeoutError:
            return f"{beginning}{_PLAIN_TEXT}" if _answers_in_plain_text(host, port) else ""
        except OSError:
            return ""
    return ""


def _answers_in_plain_text(host: str, port: int) -> bool:
    """Return whether a plain-text Redis listens; it does not answer a handshake, as it waits for the end of a line."""
    with suppress(OSError), socket.create_connection((host, port), timeout=_SECONDS) as wire:
        wire.sendall(b"PING\r\n")
        return wire.recv(1) in (b"+", b"-")
    return False


def _handshake_failure(exc: ssl.SSLError, connection: Connection) -> str:
    if exc.reason in _PLAIN_TEXT_REASONS:
        return _PLAIN_TEXT
    if any(word in exc.reason for word in ("CERTIFICATE", "UNKNOWN_CA", "HANDSHAKE_FAILURE")):
        return (
            f"it refuses our certificate ({exc.reason}): set {connection.setting_name('cert_file')} and "
            f"{connection.setting_name('key_file')} to one that it accepts"
        )
    return f"it refuses ({exc.reason})"
