"""Security events for the bank's SIEM: each is a log line, and an OTLP log record if an OTLP endpoint is set.

An event that cannot be exported is dropped; the log still has it, and SQL has the change that it reports, if any.
"""

import json
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.resources import Resource

from telemetry.ocsf import Code, SecurityEvent, as_ocsf
from telemetry.setup import TraceSettings, otlp_session

log = structlog.get_logger(__name__)

REFUSALS_SECONDS = 1.0
"""The minimum time between two events of refused sign-ins with the same reason."""
_MOST_REASONS = 50
"""Reasons beyond this number are recorded as one."""


class Siem:
    """Records security events without blocking or raising."""

    def __init__(
        self, service: str, provider: LoggerProvider | None = None, *, now: Callable[[], float] = time.time
    ) -> None:
        """`provider` exports log records; `now` returns Unix seconds."""
        self._service = service
        self._logger = None if provider is None else provider.get_logger(__name__)
        self._now = now
        self._refusals: dict[str, tuple[float, int]] = {}
        """By reason: the time of the last event, and the number of refusals since then, which have no event yet."""

    def emit(
        self, code: Code, *, tenant: str = "", by: str = "", about: str = "", detail: str = "", count: int = 1
    ) -> None:
        """Record an event at the current time (`telemetry.ocsf.SecurityEvent`)."""
        event = SecurityEvent(code=code, at=self._now(), tenant=tenant, by=by, about=about, detail=detail, count=count)
        ocsf = as_ocsf(event, self._service)
        log.info("security_event", ocsf=ocsf)
        if self._logger is not None:
            self._logger.emit(
                LogRecord(
                    timestamp=time.time_ns(),
                    severity_number=SeverityNumber.INFO,
                    severity_text="INFO",
                    body=json.dumps(ocsf, ensure_ascii=False, separators=(",", ":")),
                    attributes={"ocsf": True},
                )
            )

    def record_refusal(self, reason: str) -> None:
        """Record a refused sign-in: at most one event per second and reason, with the number of refusals."""
        if reason not in self._refusals and len(self._refusals) >= _MOST_REASONS:
            reason = "for another reason"
        recorded_at, unreported = self._refusals.get(reason, (float("-inf"), 0))
        if self._now() - recorded_at < REFUSALS_SECONDS:
            self._refusals[reason] = recorded_at, unreported + 1
        else:
            self._refusals[reason] = self._now(), 0
            self.emit(Code.SIGN_IN_REFUSED, detail=reason, count=unreported + 1)

    def close(self) -> None:
        """Record the refusals that have no event yet."""
        for reason, (_, unreported) in self._refusals.items():
            if unreported:
                self.emit(Code.SIGN_IN_REFUSED, detail=reason, count=unreported)
        self._refusals.clear()


@contextmanager
def open_siem(
    service: str,
    settings: TraceSettings,
    *,
    tls: ssl.SSLContext | None = None,
    now: Callable[[], float] = time.time,
) -> Iterator[Siem]:
    """Record security events while the block runs; export pending ones at its end, within the export timeout."""
    provider = None
    if settings.otlp_endpoint:
        provider = LoggerProvider(resource=Resource.create({"service.name": service}))
        exporter = OTLPLogExporter(
            endpoint=f"{settings.otlp_endpoint}/v1/logs", timeout=settings.export_timeout, session=otlp_session(tls)
        )
        provider.add_log_record_processor(BatchLogRecordProcessor(exporter))
    siem = Siem(service, provider, now=now)
    try:
        yield siem
    finally:
        siem.close()
        if provider is not None:
            provider.shutdown()
