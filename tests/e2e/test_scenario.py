"""The load scenario holds conversations with the product and measures the first token; it fails when answers fail."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.e2e.conftest import Product

pytestmark = pytest.mark.e2e

SCENARIO = Path(__file__).parents[2] / "evals" / "performance" / "locustfile.py"
CONVERSATIONS = (
    {"text": "샘물 정기예금의 기본 금리는 얼마인가요?"},
    {
        "text": "How long does it take?",
        "history": [
            {"role": "user", "text": "What does an overseas transfer cost?"},
            {"role": "assistant", "text": "8,000 won."},
        ],
    },
)


def stay(
    product: Product, folder: Path, seconds: int, *options: str
) -> tuple[int, Mapping[tuple[str, str], Mapping[str, float]]]:
    """Let three customers talk for a while; return the exit status and locust's figures by (method, name)."""
    questions = folder / "queries.jsonl"
    questions.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in CONVERSATIONS), "utf-8")
    command = [sys.executable, "-m", "locust", "-f", str(SCENARIO), "--host", product.url, "--headless", "--json"]
    command += [
        "-u",
        "3",
        "-r",
        "3",
        "-t",
        f"{seconds}s",
        "-s",
        "5",
        "--questions",
        str(questions),
        "--think",
        "0.1",
        *options,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)  # noqa: S603
    try:
        return done.returncode, {(row["method"], row["name"]): row for row in json.loads(done.stdout)}
    except json.JSONDecodeError:
        pytest.fail(done.stderr[-3000:])


def test_customers_hold_conversations_and_their_first_token_is_measured(product: Product, tmp_path: Path) -> None:
    status, figures = stay(product, tmp_path, 3, "--leaving", "0", "--first-token-p95", "30")
    first, whole = figures["SSE", "first token"], figures["SSE", "whole answer"]
    assert status == 0
    assert figures["POST", "/v1/chat"]["num_failures"] == 0
    assert first["num_requests"] >= 1
    assert 0 < first["min_response_time"] <= whole["max_response_time"]


def test_the_scenario_fails_where_answers_do(product: Product, tmp_path: Path) -> None:
    status, _ = stay(product, tmp_path, 1, "--leaving", "0", "--first-token-p95", "0.000001")
    assert status == 1
