"""A service's server certificate and client-certificate check; a renewed certificate is loaded without a restart.

Open connections keep the certificate from their handshake.
"""

import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Self

import anyio
import structlog
from pydantic import BaseModel, Field, ValidationError, model_validator

from knowledge.tls import TlsFiles, load_certificate, tls_reason
from telemetry.supervision import supervise

log = structlog.get_logger(__name__)

CHECK_SECONDS = 2.0


class ServerTlsSettings(BaseModel, frozen=True):
    """A service's certificate and its clients' authorities; without a certificate it serves plain text."""

    cert_file: Path | None = Field(
        None, description="The service shows this certificate (PEM file). Changes are noticed within 2 s."
    )
    key_file: Path | None = Field(None, description="The private key of that certificate is in this PEM file.")
    client_ca_file: Path | None = Field(
        None,
        description=(
            "Clients need a certificate of these authorities (PEM file). Without it no client certificate is required."
        ),
    )

    @model_validator(mode="after")
    def _files_can_be_used(self) -> Self:
        if self.cert_file is None and (self.key_file or self.client_ca_file):
            raise ValueError("key_file and client_ca_file need the cert_file that the service shows")
        try:
            TlsFiles(ca_file=self.client_ca_file, cert_file=self.cert_file, key_file=self.key_file)
        except ValidationError as exc:
            raise ValueError("; ".join(error["msg"].removeprefix("Value error, ") for error in exc.errors())) from exc
        return self

    @property
    def scheme(self) -> str:
        """The scheme of the service's URLs."""
        return "http" if self.cert_file is None else "https"


PLAIN_TEXT = ServerTlsSettings()


@asynccontextmanager
async def server_tls_context(settings: ServerTlsSettings) -> AsyncGenerator[ssl.SSLContext | None]:
    """Yield a listener's TLS context, and reload changed certificates while the block runs; None without TLS."""
    if settings.cert_file is None:
        yield None
        return
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if settings.client_ca_file is not None:
        context.load_verify_locations(settings.client_ca_file)
        context.verify_mode = ssl.CERT_REQUIRED
    file_states = await anyio.to_thread.run_sync(_file_states, settings)
    load_certificate(context, settings.cert_file, settings.key_file)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(supervise, "certificate", partial(_reload, context, settings, settings.cert_file, file_states))
        yield context
        tasks.cancel_scope.cancel()


async def _reload(
    context: ssl.SSLContext, settings: ServerTlsSettings, cert_file: Path, file_states: tuple[int, ...]
) -> None:
    """Load the certificate when its files change; an unusable certificate is logged once, and the former one stays."""
    while True:
        await anyio.sleep(CHECK_SECONDS)
        before, file_states = file_states, await anyio.to_thread.run_sync(_file_states, settings)
        if file_states == before:
            continue
        try:
            # Test in another context first: loading a mismatched certificate and key would replace one of the two.
            trial = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            await anyio.to_thread.run_sync(load_certificate, trial, cert_file, settings.key_file)
            load_certificate(context, cert_file, settings.key_file)  # in the event loop: no concurrent handshakes
            log.info("certificate_loaded", file=str(cert_file))
        except OSError as exc:  # includes ssl.SSLError
            log.warning("certificate_load_failed", file=str(cert_file), reason=tls_reason(exc) or exc.strerror)


def _file_states(settings: ServerTlsSettings) -> tuple[int, ...]:
    """Return modification times, inodes and sizes of the existing files, to detect a change (blocking)."""
    paths = (settings.cert_file, settings.key_file)
    states = [path.stat() for path in paths if path is not None and path.exists()]
    return tuple(number for state in states for number in (state.st_mtime_ns, state.st_ino, state.st_size))
