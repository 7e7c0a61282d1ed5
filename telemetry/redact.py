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
    return "\n".join(_stack_lines(exc_info[1], set()))


def _stack_lines(exc: BaseException, seen_ids: set[int]) -> Iterator[str]:
    """Yield the lines of `stack_of`: first the cause, then the exception, then the parts of a group."""
    seen_ids.add(id(exc))
    cause = exc.__cause__
    if cause is None and not exc.__suppress_context__:
        cause = exc.__context__
    if cause is not None and id(cause) not in seen_ids:
        yield from _stack_lines(cause, seen_ids)
        yield "which led to:"
    for frame in traceback.format_tb(exc.__traceback__):
        yield frame.rstrip("\n")
    type_name = f"{type(exc).__module__}.{type(exc).__qualname__}".removeprefix("builtins.")
    if isinstance(exc, OSError) and isinstance(exc.errno, int):
        yield f"{type_name}: {os.strerror(exc.errno)}"
    else:
        yield type_name
    if isinstance(exc, BaseExceptionGroup):
        for n, part in enumerate(exc.exceptions, 1):
            if id(part) not in seen_ids:
                yield f"part {n}:"
                yield from _stack_lines(part, seen_ids)


def drop_quoted_exception(_logger: object, _method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """Cut third-party log messages with an exception to one line, because asyncio appends the message."""
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
_EXCEPTION_ATTRIBUTES = frozenset({"exception.message", "exception.stacktrace"})
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
    """Return a copy of the span, with no content in attributes, events and status, and without the trace state."""
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
    attributes = {key: value for key, value in (event.attributes or {}).items() if key not in _EXCEPTION_ATTRIBUTES}
    return Event(event.name, attributes, event.timestamp)
