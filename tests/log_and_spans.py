"""Captures a process's log, formatted as in production, and its exported spans."""

import io
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from telemetry.logs import configure_logs
from telemetry.redact import ContentFreeExporter
from telemetry.setup import TraceSettings, tracing


@contextmanager
def written_log() -> Iterator[io.StringIO]:
    """Yield a buffer that receives the log in production format, at DEBUG."""
    before = structlog.get_config()
    configure_logs(level="DEBUG")
    structlog.configure(cache_logger_on_first_use=False)  # so that later tests can configure loggers
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # the tests' own client
    written = io.StringIO()
    handler = logging.getLogger().handlers[0]
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(written)
    try:
        yield written
    finally:
        logging.getLogger("httpx2").setLevel(logging.NOTSET)
        logging.basicConfig(handlers=[], force=True)
        structlog.configure(**before)


@dataclass(frozen=True)
class Recorded:
    """The log and the exported spans."""

    lines: io.StringIO
    exporter: InMemorySpanExporter
    provider: TracerProvider

    def all(self) -> str:
        """Return the log and the spans, one line per span."""
        self.provider.force_flush()
        spans = [re.sub(r"\s+", " ", span.to_json()) for span in self.exporter.get_finished_spans()]
        return "\n".join([self.lines.getvalue(), *spans])


@contextmanager
def listening_to(lines: io.StringIO) -> Iterator[Recorded]:
    """Export spans as our programs do, into memory, while the block runs."""
    exporter = InMemorySpanExporter()
    with tracing("test", TraceSettings(), exporter=exporter) as provider:
        recorded = Recorded(lines, exporter, provider)
        first = trace.get_tracer_provider()
        if first is provider or not isinstance(first, TracerProvider):
            yield recorded
            return
        # A process keeps its first provider, so an earlier test's provider has the spans created within requests.
        processor = SimpleSpanProcessor(ContentFreeExporter(exporter))
        first.add_span_processor(processor)
        try:
            yield recorded
        finally:
            processor.shutdown()
