"""What a process tells of its requests: every line of its log, as it is written in production, and every span that it
exports.
"""

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
    """Have the log written as our programs write it, at DEBUG, into what is yielded."""
    before = structlog.get_config()
    configure_logs(level="DEBUG")
    structlog.configure(cache_logger_on_first_use=False)  # later tests have loggers of their own
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
class Told:
    """The log, and the spans that were exported."""

    lines: io.StringIO
    exporter: InMemorySpanExporter
    provider: TracerProvider

    def all(self) -> str:
        """Return the log and the spans, each span a line."""
        self.provider.force_flush()
        spans = [re.sub(r"\s+", " ", span.to_json()) for span in self.exporter.get_finished_spans()]
        return "\n".join([self.lines.getvalue(), *spans])


@contextmanager
def listening_to(lines: io.StringIO) -> Iterator[Told]:
    """Export spans as our programs do, into memory, while the block runs."""
    exporter = InMemorySpanExporter()
    with tracing("test", TraceSettings(), exporter=exporter) as provider:
        told = Told(lines, exporter, provider)
        first = trace.get_tracer_provider()
        if first is provider or not isinstance(first, TracerProvider):
            yield told
            return
        # A process has one provider for good; an earlier test's has the spans that are made within a request.
        processor = SimpleSpanProcessor(ContentFreeExporter(exporter))
        first.add_span_processor(processor)
        try:
            yield told
        finally:
            processor.shutdown()
