"""Real vLLM behind the real API: tokens stream, usage is the model's, and no number is invented in strict mode."""

import os
import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from chatbot.numbers import unsupported
from tests.conftest import free_port
from tests.e2e.conftest import BIN, DOCUMENTS, Product, SentEvent, read_events, served, text_of, until

pytestmark = [pytest.mark.anyio, pytest.mark.e2e, pytest.mark.vllm, pytest.mark.timeout(600)]

PROFILE = "cpu-small"
KOREAN = "샘물 정기예금을 만기 전에 해지하면 금리가 어떻게 되나요?"
ENGLISH = "How much does an overseas transfer up to USD 5,000 cost?"


@pytest.fixture(scope="module")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """vLLM with the small profile, started as an operator would; ready after it has generated a token."""
    folder, port = tmp_path_factory.mktemp("vllm"), free_port()
    log = folder / "vllm.log"
    command = [str(BIN / "llm-server"), "serve", "--profile", PROFILE, "--port", str(port), "--log-file", str(log)]
    with (
        (folder / "llm-server.err").open("w") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as server,  # noqa: S603
    ):
        try:
            timer = threading.Timer(300, server.kill)
            timer.start()
            assert server.stdout is not None
            ready = server.stdout.readline()
            timer.cancel()
            assert ready.startswith("ready"), log.read_text("utf-8")[-3000:]
            weights = Path(os.environ.get("WEIGHTS_DIR", "~/.cache/bank-chatbot/weights")).expanduser()  # noqa: TID251
            yield {
                "LLM_URLS": f"http://127.0.0.1:{port}",
                "LLM_TOKENIZER": str(weights / PROFILE),
                "LLM_PROFILE": PROFILE,
            }
        finally:
            server.terminate()
            server.wait(60)


@pytest.fixture(scope="module")
def flowing(tmp_path_factory: pytest.TempPathFactory, redis_url: str, vllm: dict[str, str]) -> Iterator[Product]:
    """The product without checks: the model's words as they come."""
    with served(tmp_path_factory.mktemp("flowing"), redis_url, vllm, TURN__GROUNDING="off") as running:
        yield running


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory, redis_url: str, vllm: dict[str, str]) -> Iterator[Product]:
    """The product as customers meet it."""
    with served(tmp_path_factory.mktemp("strict"), redis_url, vllm) as running:
        yield running


async def running_in_vllm(product: Product) -> float:
    async with httpx2.AsyncClient() as http:
        metrics = (await http.get(f"{product.model_url}/metrics")).text
    return sum(float(n) for n in re.findall(r"^vllm:num_requests_running\{.*\} (\S+)$", metrics, re.MULTILINE))


async def nothing_runs(product: Product) -> bool:
    return await running_in_vllm(product) == 0


@pytest.mark.parametrize("question", [KOREAN, ENGLISH], ids=["ko", "en"])
async def test_tokens_stream_from_vllm(flowing: Product, question: str) -> None:
    async with flowing.client() as http:
        events = await flowing.ask(http, question, max_answer_tokens=60)
    tokens = [event for event in events if event.name == "token"]
    assert len(tokens) >= 3
    assert len(text_of(events)) > 20
    usage = events[-1].field("usage")
    assert isinstance(usage, dict)
    assert 0 < usage["answer_tokens"] <= 60
    assert usage["prompt_tokens"] > 100
    assert events[0].field("model") != "unknown"


@pytest.mark.parametrize("question", [KOREAN, ENGLISH], ids=["ko", "en"])
async def test_every_number_that_strict_mode_shows_stands_in_the_documents(strict: Product, question: str) -> None:
    async with strict.client() as http:
        events = await strict.ask(http, question, max_answer_tokens=120)
    assert events[-1].name == "done"
    documents = [path.read_text("utf-8") for path in DOCUMENTS.iterdir()]
    assert unsupported(text_of(events), [*documents, "1599-0000"]) == ()


async def test_a_customer_who_stops_frees_vllm(flowing: Product) -> None:
    async with flowing.client() as http:
        events: list[SentEvent] = []
        async with http.stream("POST", "/v1/chat", json={"message": KOREAN, "max_answer_tokens": 400}) as response:
            async for event in read_events(response):
                events.append(event)
                if event.name == "token" and len(events) < 8:
                    await http.post(f"/v1/answers/{events[0].field('answer_id')}/cancel")
        assert events[-1].field("finish_reason") == "cancelled"
    await until(lambda: nothing_runs(flowing), 0.5)
