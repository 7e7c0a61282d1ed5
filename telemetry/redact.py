"""Removes what customers wrote from log lines and spans, by the names of fields and attributes."""

from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import Status

CONTENT_FIELDS = frozenset(
    {"message", "question", "answer", "text", "prompt", "content", "body", "comment", "quote", "token", "authorization"}
)


def drop_content(_logger: object, _method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """Replace content fields by their length (a structlog processor)."""
    for field in CONTENT_FIELDS & event.keys():
        event[field] = f"<{len(str(event[field]))} characters>"
    return event


CONTENT_ATTRIBUTES = frozenset({"url.query", "url.full", "http.url", "http.target"})
"""A question (`q`) and a customer's id (`sub`) stand in the query of an address."""
_OF_EXCEPTIONS = frozenset({"exception.message", "exception.stacktrace"})
"""An exception's message may repeat what it could not read; its type stays, and the log has the rest."""


class ContentFreeExporter(SpanExporter):
    """Exports spans without the attributes that hold what customers wrote."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return self._exporter.export([without_content(span) for span in spans])

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


def without_content(span: ReadableSpan) -> ReadableSpan:
    """Return the span without content: in its attributes, its events and its status."""
    return ReadableSpan(
        name=span.name,
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes={key: value for key, value in (span.attributes or {}).items() if key not in CONTENT_ATTRIBUTES},
        events=[_event_without_content(event) for event in span.events],
        links=span.links,
        kind=span.kind,
        status=Status(span.status.status_code),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _event_without_content(event: Event) -> Event:
    kept = {key: value for key, value in (event.attributes or {}).items() if key not in _OF_EXCEPTIONS}
    return Event(event.name, kept, event.timestamp)
