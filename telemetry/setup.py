"""Traces: the process's tracer provider, which exports over OTLP/HTTP if an endpoint is set."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from opentelemetry import propagate, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from pydantic import BaseModel, Field
from requests import PreparedRequest, Session  # noqa: TID251  the exporter's HTTP client
from requests.adapters import HTTPAdapter  # noqa: TID251  as above

from telemetry.redact import ContentFreeExporter


class TraceSettings(BaseModel, frozen=True):
    """The OTLP endpoint and export timeout; without an endpoint, spans exist only for their ids in the logs."""

    otlp_endpoint: str | None = Field(
        None,
        description=(
            "Spans and security events are sent to this OTLP/HTTP address, without a path. Without it spans are"
            " dropped, events only logged."
        ),
    )
    export_timeout: ClassVar[float] = 5.0  # seconds; the deadline of an export


class _TlsAdapter(HTTPAdapter):
    """Uses our TLS context for every connection; requests would build one from its own options."""

    def __init__(self, tls: ssl.SSLContext) -> None:
        self._tls = tls
        super().__init__()

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, ssl_context=self._tls, **options)

    def build_connection_pool_key_attributes(self, request: PreparedRequest, *_: Any) -> tuple[Any, Any]:
        return super().build_connection_pool_key_attributes(request, verify=True)[0], {}

    def cert_verify(self, *_: Any) -> None:
        pass


def otlp_session(tls: ssl.SSLContext | None) -> Session:
    """Return the HTTP session of an OTLP exporter."""
    session = Session()
    session.max_redirects = 0  # data is exported only to the configured address
    if tls is not None:
        session.mount("https://", _TlsAdapter(tls))
    return session


def _exporter(settings: TraceSettings, tls: ssl.SSLContext | None) -> SpanExporter:
    endpoint = f"{settings.otlp_endpoint}/v1/traces"
    return OTLPSpanExporter(endpoint=endpoint, timeout=settings.export_timeout, session=otlp_session(tls))


@contextmanager
def tracing(
    service: str, settings: TraceSettings, *, tls: ssl.SSLContext | None = None, exporter: SpanExporter | None = None
) -> Iterator[TracerProvider]:
    """Install the process's tracer provider while the block runs; `exporter` replaces OTLP (tests)."""
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    if exporter is None and settings.otlp_endpoint:
        exporter = _exporter(settings, tls)
    if exporter is not None:
        provider.add_span_processor(BatchSpanProcessor(ContentFreeExporter(exporter)))
    trace.set_tracer_provider(provider)
    try:
        yield provider
    finally:
        provider.shutdown()


def current_trace_id() -> str:
    """Return the current trace id as 32 hex digits, all zeros outside a trace."""
    return f"{trace.get_current_span().get_span_context().trace_id:032x}"


def trace_headers() -> dict[str, str]:
    """Return the W3C `traceparent` (and `tracestate`) headers of the current span, for an outgoing request."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier
