"""JSON logs, one object per line with the current trace and span ids, also for the standard library's loggers."""

import logging
import sys
from collections.abc import Mapping, MutableMapping
from typing import Annotated, Any, Literal

import structlog
from opentelemetry import trace
from pydantic import AfterValidator

from telemetry.redact import drop_content, drop_quoted_exception, stack_of


def _checked_level(name: str) -> str:
    level = name.upper()
    if level not in logging.getLevelNamesMapping():
        raise ValueError("choose one of DEBUG, INFO, WARNING and ERROR")
    return level


LogLevel = Annotated[str, AfterValidator(_checked_level)]
"""The name of a level, in any case."""
LogFormat = Literal["json", "console"]
OUR_PACKAGES = ("chatbot", "edge", "evals", "ingest", "knowledge", "llm_server", "telemetry")


def add_trace(_logger: object, _method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """Add the `trace_id` and `span_id` of the current span (a structlog processor)."""
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = f"{context.trace_id:032x}"
        event["span_id"] = f"{context.span_id:016x}"
    return event


def configure_logs(*, level: str = "INFO", log_format: LogFormat = "json") -> None:
    """Configure structlog and the standard library's logging to write to stderr in one format."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        add_trace,
        drop_content,
        drop_quoted_exception,
        structlog.processors.ExceptionRenderer(stack_of),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    renderer: structlog.typing.Processor = structlog.processors.JSONRenderer(ensure_ascii=False)
    if log_format == "console":
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(handlers=[handler], level=level, force=True)
    # At DEBUG, drivers log statement parameters and bodies, so only our own packages may use that level.
    logging.getLogger().setLevel(max(logging.INFO, logging.getLogger().level))
    for package in OUR_PACKAGES:
        logging.getLogger(package).setLevel(level)
    # At INFO, these log a line per request to Qdrant and to the sign-in provider.
    for client in ("httpx", "httpx2"):
        logging.getLogger(client).setLevel(logging.WARNING)
    # uvicorn's access log is redundant: the proxy logs requests.
    logging.getLogger("uvicorn.access").disabled = True
