"""Logs are JSON with trace ids and without customers' texts."""

import asyncio
import gc
import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog
from opentelemetry.sdk.trace import TracerProvider

from telemetry.logs import configure_logs

CANARY = "계좌 110-123-456789 잔액"


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    before = structlog.get_config()
    configure_logs(level="DEBUG")
    written = io.StringIO()
    handler = logging.getLogger().handlers[0]
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(written)
    yield written
    logging.basicConfig(handlers=[], force=True)
    structlog.configure(**before)


def test_a_line_carries_the_trace_of_its_span(lines: io.StringIO) -> None:
    tracer = TracerProvider().get_tracer("test")
    with tracer.start_as_current_span("turn") as span:
        structlog.get_logger("chatbot.turn").info("answered", answer_id="a1")
    line = json.loads(lines.getvalue())
    assert line["event"] == "answered"
    assert line["answer_id"] == "a1"
    assert line["trace_id"] == f"{span.get_span_context().trace_id:032x}"
    assert line["level"] == "info"


def test_content_is_replaced_by_its_length(lines: io.StringIO) -> None:
    structlog.get_logger("x").warning("odd", message=CANARY, question=CANARY, answer=CANARY, token=CANARY)
    assert CANARY not in lines.getvalue()
    assert json.loads(lines.getvalue())["question"] == f"<{len(CANARY)} characters>"


def test_loggers_of_the_standard_library_have_the_same_format(lines: io.StringIO) -> None:
    logging.getLogger("somebody.else").error("disk %s", "full")
    line = json.loads(lines.getvalue())
    assert (line["event"], line["level"], line["logger"]) == ("disk full", "error", "somebody.else")


def test_drivers_never_log_below_info(lines: io.StringIO) -> None:
    assert logging.getLogger("chatbot.turn").isEnabledFor(logging.DEBUG)
    for driver in ("aiosqlite", "botocore.endpoint", "sqlalchemy.engine", "asyncpg", "httpx2", "redis"):
        logging.getLogger(driver).debug("INSERT … (%s)", CANARY)
        assert not logging.getLogger(driver).isEnabledFor(logging.DEBUG), "its parameters are customers'"
    assert CANARY not in lines.getvalue()


def test_requests_to_other_servers_are_not_logged(lines: io.StringIO) -> None:
    for client in ("httpx", "httpx2"):
        logging.getLogger(client).info("HTTP Request: POST http://qdrant:6333/collections/kb-1/points/query/batch")
    assert not lines.getvalue()


def fail() -> None:
    raise ValueError(f"cannot read {CANARY}") from KeyError(CANARY)


async def fail_unseen() -> None:
    """Fail in a task that is not awaited, and in a callback of the event loop."""

    async def work() -> None:
        fail()

    loop = asyncio.get_running_loop()
    task = loop.create_task(work())
    await asyncio.wait([task])
    del task
    gc.collect()
    loop.call_soon(fail)
    await asyncio.sleep(0)


def test_unawaited_failures_are_logged_with_type_and_code_lines(lines: io.StringIO) -> None:
    asyncio.run(fail_unseen())
    failures = [json.loads(line) for line in lines.getvalue().splitlines() if "selector" not in line]
    unawaited, in_callback = failures
    assert unawaited["event"] == "Task exception was never retrieved"
    assert in_callback["event"].startswith("Exception in callback fail()")
    for line in failures:
        assert line["exception"].splitlines()[0] == "KeyError", "what led to it"
        assert "in fail" in line["exception"]
        assert line["exception"].endswith("ValueError")
    assert CANARY not in lines.getvalue()
