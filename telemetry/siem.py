"""Security events on their way to the bank's SIEM: to a file, a line each, or as OTLP logs; off unless one is set.

Telling of an event never waits and never fails: what cannot be written waits in a bounded queue, is tried again each
second, and beyond the bound dropped and counted. What is told is a copy; the truth stays in SQL. A line that was
written before a failure may come again, with the same `metadata.uid`.
"""

import os
import ssl
import time
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path
from typing import Protocol, Self

import anyio
import structlog
from anyio import CapacityLimiter
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk._logs.export import LogRecordExportResult
from opentelemetry.sdk.resources import Resource
from pydantic import BaseModel, Field, PositiveFloat, PositiveInt, model_validator

from telemetry.ocsf import Code, SecurityEvent, as_ocsf
from telemetry.setup import otlp_session
from telemetry.supervision import OnFailure, supervise, uncounted

log = structlog.get_logger(__name__)

EVERY_SECONDS = 1.0
GOODBYE_SECONDS = 5.0
_BATCH = 500
_MOST_REASONS = 50


class SiemSettings(BaseModel, frozen=True):
    """Where security events go."""

    file: Path | None = Field(
        None,
        description=(
            "a file that security events are appended to, an object of OCSF a line (docs/operations.md); it may be "
            "moved away at any time, and `/dev/stdout` is one; without it and SIEM__OTLP_ENDPOINT there are none"
        ),
    )
    otlp_endpoint: str | None = Field(
        None, description="where they go instead as logs (OTLP over HTTP), an address without a path"
    )
    timeout: PositiveFloat = Field(5.0, description="seconds: the deadline of writing some of them")
    most_waiting: PositiveInt = Field(
        10_000, description="events: that wait while they cannot be written; further ones are dropped and counted"
    )

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.file is not None and self.otlp_endpoint is not None:
            raise ValueError("set SIEM__FILE or SIEM__OTLP_ENDPOINT, not both: where do security events go?")
        return self


class Sink(Protocol):
    """Where lines go."""

    def write(self, lines: Sequence[str]) -> None:
        """Write whole lines (blocking).

        Raises:
            OSError: not all of them were written.
        """
        ...

    def close(self) -> None:
        """Leave nothing open."""
        ...


class FileSink:
    """A file that others may append to as well, opened anew each time: who rotates it moves it away.

    What is tried again begins with the same lines.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._begun = 0
        """How many bytes of these lines were taken already, where not all were."""

    def write(self, lines: Sequence[str]) -> None:
        data = "".join(f"{line}\n" for line in lines).encode()
        # A pipe that nobody reads must fail, not hold a thread that would keep the process from ending.
        opened = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK, 0o640)
        try:
            self._begun += os.write(opened, data[self._begun :])  # in one call, or lines of two processes would mix
        finally:
            os.close(opened)
        if self._begun < len(data):
            raise OSError("a part of it was taken")
        self._begun = 0

    def close(self) -> None:
        """The file is opened for each write."""


class OtlpSink:
    """A collector of logs."""

    def __init__(self, endpoint: str, service: str, timeout: float, tls: ssl.SSLContext | None) -> None:
        session = otlp_session(tls)
        self._exporter = OTLPLogExporter(endpoint=f"{endpoint}/v1/logs", timeout=timeout, session=session)
        self._resource = Resource.create({"service.name": service})

    def write(self, lines: Sequence[str]) -> None:
        records = [
            ReadableLogRecord(
                LogRecord(
                    timestamp=time.time_ns(),
                    severity_number=SeverityNumber.INFO,
                    severity_text="INFO",
                    body=line,
                    attributes={"ocsf": True},
                ),
                self._resource,
            )
            for line in lines
        ]
        if self._exporter.export(records) is not LogRecordExportResult.SUCCESS:
            raise OSError("the collector took nothing")

    def close(self) -> None:
        self._exporter.shutdown()  # type: ignore[no-untyped-call]  # theirs has no types


class Siem:
    """Tells a SIEM what happened."""

    def __init__(
        self,
        service: str,
        settings: SiemSettings,
        *,
        tls: Callable[[], ssl.SSLContext | None] = lambda: None,
        now: Callable[[], float] = time.time,
        on_dropped: Callable[[int], None] = lambda _: None,
    ) -> None:
        """`tls` makes a collector's context, `now` tells Unix seconds, `on_dropped` gets the number of lost events."""
        self._service = service
        self._settings = settings
        self._now = now
        self._on_dropped = on_dropped
        self._sink = _sink_of(service, settings, tls)
        self._waiting: deque[str] = deque()
        self._refusals: Counter[str] = Counter()
        self._thread = CapacityLimiter(1)  # a disk that stands still holds one thread, not all
        self._fails = False

    def tell(
        self, code: Code, *, tenant: str = "", by: str = "", about: str = "", detail: str = "", count: int = 1
    ) -> None:
        """Tell that something has happened now (`telemetry.ocsf.SecurityEvent`)."""
        if self._sink is None:
            return
        if len(self._waiting) >= self._settings.most_waiting:
            self._on_dropped(1)
            return
        event = SecurityEvent(code=code, at=self._now(), tenant=tenant, by=by, about=about, detail=detail, count=count)
        self._waiting.append(as_ocsf(event, self._service))

    def refused(self, why: str) -> None:
        """Tell of a sign-in that was refused: those of a second and a reason are one event."""
        if self._sink is not None:
            is_known = why in self._refusals or len(self._refusals) < _MOST_REASONS
            self._refusals[why if is_known else "for another reason"] += 1

    async def write_forever(self) -> None:
        """Write what waits, again and again."""
        while True:
            await anyio.sleep(EVERY_SECONDS)
            await self.write()

    async def write(self) -> None:
        """Write what waits; what cannot be written goes on waiting."""
        if self._sink is None:
            return
        refusals, self._refusals = self._refusals, Counter()
        for why, count in refusals.items():
            self.tell(Code.SIGN_IN_REFUSED, detail=why, count=count)
        while self._waiting:
            batch = list(islice(self._waiting, _BATCH))
            try:
                with anyio.fail_after(self._settings.timeout):
                    await anyio.to_thread.run_sync(
                        self._sink.write, batch, abandon_on_cancel=True, limiter=self._thread
                    )
            except OSError as exc:
                if not self._fails:
                    log.warning("siem_not_written", error=type(exc).__name__, waiting=len(self._waiting))
                self._fails = True
                return
            self._fails = False
            for _ in batch:
                self._waiting.popleft()

    def close(self) -> None:
        """Count what still waits as dropped, and leave nothing open."""
        if self._waiting:
            self._on_dropped(len(self._waiting))
        if self._sink is not None:
            self._sink.close()


def _sink_of(service: str, settings: SiemSettings, tls: Callable[[], ssl.SSLContext | None]) -> Sink | None:
    if settings.file is not None:
        return FileSink(settings.file)
    if settings.otlp_endpoint is not None:
        return OtlpSink(settings.otlp_endpoint, service, settings.timeout, tls())
    return None


@asynccontextmanager
async def open_siem(siem: Siem, *, on_failure: OnFailure = uncounted) -> AsyncGenerator[Siem]:
    """Write what `siem` is told while the block runs, and the rest on the way out, within 5 s."""
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(supervise, "siem", siem.write_forever, on_failure)
            try:
                yield siem
            finally:
                tasks.cancel_scope.cancel()
    finally:
        with anyio.move_on_after(GOODBYE_SECONDS, shield=True):
            await siem.write()
        siem.close()
