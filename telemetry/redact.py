"""Removes customers' text from log lines and spans: content fields, request attributes, exception messages."""

import os
import traceback
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from types import TracebackType
from typing import Any

from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import SpanContext, SpanKind, Status

CONTENT_FIELDS = frozenset(
    {"message", "question", "answer", "text", "prompt", "content", "body", "comment", "quote", "token", "authorization"}
)


def drop_content(_logger: object, _method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """Replace content fields by their length (a structlog processor)."""
    for field in CONTENT_FIELDS & event.keys():
        event[field] = f"<{len(str(event[field]))} characters>"
    return event


ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]


def stack_of(exc_info: ExcInfo) -> str:
    """Return the types and tracebacks of an exception and its causes, without messages (for structlog's renderer).

    Messages may quote input such as a question or a row's values. For operating system errors, the kernel's error text
    is included.
    """
    return "\n".join(_described(exc_info[1], set()))


def _described(exc: BaseException, seen: set[int]) -> Iterator[str]:
    seen.add(id(exc))
    earlier = exc.__cause__ or (None if exc.__suppress_context__ else exc.__context__)
    if earlier is not None and id(earlier) not in seen:
        yield from _described(earlier, seen)
        yield "which led to:"
    yield from (lines.rstrip("\n") for lines in traceback.format_tb(exc.__traceback__))
    kind = f"{type(exc).__module__}.{type(exc).__qualname__}".removeprefix("builtins.")
    number = exc.errno if isinstance(exc, OSError) else None
    yield f"{kind}: {os.strerror(number)}" if isinstance(number, int) else kind
    for n, part in enumerate(exc.exceptions if isinstance(exc, BaseExceptionGroup) else (), 1):
        if id(part) not in seen:
            yield f"part {n}:"
            yield from _described(part, seen)


def drop_quoted_exception(_logger: object, _method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """Keep the first line of third-party log messages with an exception: asyncio appends the exception's message."""
    if "exc_info" in event and not event.get("_from_structlog", True):
        event["event"] = str(event["event"]).partition("\n")[0]
    return event


REQUEST_ATTRIBUTES = frozenset(
    {
        "error.type",
        "http.request.method",
        "http.response.status_code",
        "http.route",
        "network.protocol.version",
        "url.scheme",
    }
)
"""Attributes that callers cannot choose freely, unlike a path, a query, a Host or an unknown method."""
_OF_EXCEPTIONS = frozenset({"exception.message", "exception.stacktrace"})
"""An exception's message may quote its input; its type stays in the span, and its traceback is in the log."""


class ContentFreeExporter(SpanExporter):
    """Exports spans without attributes that contain customers' text."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return self._exporter.export([without_content(span) for span in spans])

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


def without_content(span: ReadableSpan) -> ReadableSpan:
    """Remove content from a span's attributes, events and status, and from the caller's trace state."""
    attributes = span.attributes or {}
    if span.kind is SpanKind.SERVER:
        attributes = {key: value for key, value in attributes.items() if key in REQUEST_ATTRIBUTES}
    return ReadableSpan(
        name=span.name,
        context=_without_state(span.context),
        parent=_without_state(span.parent),
        resource=span.resource,
        attributes=attributes,
        events=[_event_without_content(event) for event in span.events],
        links=span.links,
        kind=span.kind,
        status=Status(span.status.status_code),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _without_state(context: SpanContext | None) -> SpanContext | None:
    """Return the context without the caller's `tracestate`."""
    if context is None:
        return None
    return SpanContext(context.trace_id, context.span_id, context.is_remote, context.trace_flags)


def _event_without_content(event: Event) -> Event:
    kept_attributes = {key: value for key, value in (event.attributes or {}).items() if key not in _OF_EXCEPTIONS}
    return Event(event.name, kept_attributes, event.timestamp)
