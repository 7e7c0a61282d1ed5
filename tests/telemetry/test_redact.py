"""A canary anywhere in a customer's request appears in no span and in no log line."""

import io
import logging

import httpx2
import pytest
from fastapi import FastAPI
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from knowledge.storage import open_engine
from telemetry.setup import TraceSettings, tracing

pytestmark = pytest.mark.anyio

CANARY = "880101-1234567"


async def test_no_query_or_exception_text_is_in_a_span() -> None:
    exporter = InMemorySpanExporter()
    with tracing("test", TraceSettings(), exporter=exporter) as provider:
        app = FastAPI(telemetry={"logs": False, "operation_spans": False, "tracer_provider": provider})

        @app.get("/search")
        async def search(q: str) -> str:
            return q

        @app.get("/bug")
        async def bug(q: str) -> None:
            with provider.get_tracer("test").start_as_current_span("step"):
                raise ValueError(f"cannot read {q}")

        transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url="http://chat") as http:
            for path in ("/search", "/bug", "/nowhere"):
                await http.get(path, params={"q": CANARY, "sub": CANARY})
        provider.force_flush()
        spans = [span.to_json() for span in exporter.get_finished_spans()]
    assert len(spans) == 4
    assert any('"/search"' in span for span in spans), "addresses stay"
    assert any('"exception.type": "ValueError"' in span for span in spans), "and what kind of failure it was"
    assert not any(CANARY in span for span in spans)


@pytest.mark.parametrize("statement", ["INSERT INTO nowhere VALUES (:text)", "SELECT :text FROM nowhere"])
async def test_the_parameters_of_a_statement_that_fails_are_not_in_its_message(
    tmp_path_factory: pytest.TempPathFactory, statement: str
) -> None:
    engine = open_engine(f"sqlite+aiosqlite:///{tmp_path_factory.mktemp('sql') / 'bank.db'}")
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setLevel(logging.INFO)  # below INFO, drivers log parameters; `configure_logs` suppresses that
    logging.getLogger().addHandler(handler)
    try:
        with pytest.raises(SQLAlchemyError) as failed:
            async with engine.begin() as connection:
                await connection.execute(text(statement), {"text": CANARY})
        logging.getLogger("test").error("audit_failed", exc_info=failed.value)
    finally:
        logging.getLogger().removeHandler(handler)
        await engine.dispose()
    assert "audit_failed" in written.getvalue()
    assert CANARY not in written.getvalue()
