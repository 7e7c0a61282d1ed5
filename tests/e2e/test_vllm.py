"""Real vLLM behind the real API: tokens stream, usage is the model's, no number is invented, and one of two may die."""

import asyncio
import json
import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from chatbot.grounding import unsupported_quantities
from tests.e2e.cluster import NEEDS_HAPROXY, Cluster, clustered
from tests.e2e.conftest import DOCUMENTS, ENGLISH, KOREAN, Product, new_customer, served, until
from tests.e2e.engine import PROFILE, Engine, engine
from tests.e2e.events import SentEvent, notice_codes, read_events, text_of
from tests.e2e.metrics import total

pytestmark = [pytest.mark.anyio, pytest.mark.e2e, pytest.mark.vllm, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Engine]]:
    """Two vLLMs, started side by side."""
    with ExitStack() as stack:
        both = [stack.enter_context(engine(tmp_path_factory.mktemp("vllm"))) for _ in range(2)]
        for vllm in both:
            vllm.await_ready()
        yield both


def weights() -> Path:
    """Return the folder of the small profile's weights."""
    return Path(os.environ.get("WEIGHTS_DIR", "~/.cache/bank-chatbot/weights")).expanduser() / PROFILE  # noqa: TID251


@pytest.fixture(scope="module")
def vllm(engines: list[Engine]) -> dict[str, str]:
    """The settings that point the product to them."""
    urls = ",".join(engine.url for engine in engines)
    # What the model writes is tried, which its profile leaves out.
    return {
        "LLM_URLS": urls,
        "LLM_PROFILE": PROFILE,
        "TURN__ANSWER": "written",
    }


@pytest.fixture(scope="module")
def flowing(tmp_path_factory: pytest.TempPathFactory, redis_url: str, vllm: dict[str, str]) -> Iterator[Product]:
    """The product without checks: the model's words as they come, up to the length that was asked for."""
    folder = tmp_path_factory.mktemp("flowing")
    models = folder / "models.yaml"
    entry = {"name": "primary", "urls": vllm["LLM_URLS"].split(",")}
    end = Tokenizer.from_file(f"{weights()}/tokenizer.json").token_to_id("<|im_end|>")
    without_end = {"logit_bias": {str(end): -100}}
    models.write_text(json.dumps([{**entry, "profile": PROFILE, "extra_body": without_end}]), "utf-8")
    with served(folder, redis_url, vllm, MODELS_FILE=str(models), TURN__ANSWERABILITY__THRESHOLD="0") as running:
        yield running


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory, redis_url: str, vllm: dict[str, str]) -> Iterator[Product]:
    """The product as customers meet it."""
    with served(tmp_path_factory.mktemp("strict"), redis_url, vllm) as running:
        yield running


@pytest.fixture(scope="module")
def replicas(
    tmp_path_factory: pytest.TempPathFactory, redis_url: str, vllm: dict[str, str], engines: list[Engine]
) -> Iterator[Cluster]:
    """Two replicas over one engine: a prefix that one has cached and the other has not may change a word."""
    settings = vllm | {
        "LLM_URLS": engines[0].url,
        "TURN__ANSWERABILITY__THRESHOLD": "0",
        "TURN__MAX_ANSWER_TOKENS": "60",
    }
    with clustered(tmp_path_factory.mktemp("replicas"), f"{redis_url.removesuffix('/0')}/7", **settings) as running:
        yield running


async def running_in(engine: Engine) -> float:
    return await total(engine.url, "vllm:num_requests_running")


async def nothing_runs(engines: list[Engine]) -> bool:
    return sum([await running_in(engine) for engine in engines]) == 0


@pytest.mark.parametrize("question", [KOREAN, ENGLISH], ids=["ko", "en"])
async def test_tokens_stream_from_vllm(flowing: Product, question: str) -> None:
    async with flowing.client() as http:
        events = await flowing.ask(http, question, max_answer_tokens=60)
    tokens = [event for event in events if event.name == "token"]
    assert len(tokens) >= 3
    assert len(text_of(events)) > 20
    usage = events[-1].field("usage")
    assert isinstance(usage, dict)
    assert usage["answer_tokens"] == 60
    assert usage["prompt_tokens"] > 100
    assert events[0].field("model") != "unknown"


@pytest.mark.parametrize("question", [KOREAN, ENGLISH], ids=["ko", "en"])
async def test_every_number_that_strict_mode_shows_stands_in_the_documents(strict: Product, question: str) -> None:
    async with strict.client() as http:
        events = await strict.ask(http, question, max_answer_tokens=120)
    assert events[-1].name == "done"
    documents = [path.read_text("utf-8") for path in DOCUMENTS.iterdir()]
    assert unsupported_quantities(text_of(events), [*documents, "1599-0000"]) == ()


async def test_a_customer_who_stops_frees_vllm(flowing: Product, engines: list[Engine]) -> None:
    async with flowing.client() as http:
        events: list[SentEvent] = []
        async with http.stream("POST", "/v1/chat", json={"message": KOREAN, "max_answer_tokens": 400}) as response:
            async for event in read_events(response):
                events.append(event)
                if event.name == "token" and len(events) < 8:
                    await http.post(f"/v1/answers/{events[0].field('answer_id')}/cancel")
        assert events[-1].field("finish_reason") == "cancelled"
    await until(lambda: nothing_runs(engines), 0.5)


@NEEDS_HAPROXY
async def test_an_answer_whose_writer_is_killed_goes_on_with_the_same_text(replicas: Cluster, fault_round: int) -> None:
    question, chance = (KOREAN, ENGLISH)[fault_round % 2], random.Random(fault_round)  # noqa: S311  a test's dice
    await replicas.whole()
    for _ in range(2):  # first the prefix gets into the cache
        async with replicas.client(new_customer()) as http:
            began = time.monotonic()
            whole = await replicas.ask(http, question)
            took = time.monotonic() - began
    async with replicas.client(new_customer()) as http:
        events: list[SentEvent] = []

        async def kill_in_mid_answer() -> None:
            await until(lambda: bool(events), 60)
            writer = replicas.replicas[await replicas.owner()]
            await asyncio.sleep(chance.uniform(0, 0.8) * took)
            writer.stop(signal.SIGKILL)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(replicas.follow(http, events, message=question, silence=30))
            tasks.create_task(kill_in_mid_answer())
    assert [event.id.rpartition(".")[2] for event in events] == [str(n) for n in range(1, len(events) + 1)]
    # Where two tokens are equally likely (here the end and a second sentence, -0.803 each), rounding decides.
    assert text_of(whole).startswith(text_of(events))
    assert len(text_of(events)) > 20


async def test_a_vllm_that_is_killed_mid_answer_is_succeeded_by_the_other(
    flowing: Product, engines: list[Engine]
) -> None:
    events: list[SentEvent] = []
    before = 0
    async with (
        flowing.client() as http,
        http.stream("POST", "/v1/chat", json={"message": KOREAN, "max_answer_tokens": 160}) as response,
    ):
        async for event in read_events(response):
            events.append(event)
            if event.name == "token" and not before:
                before = len(events)
                working = [engine for engine in engines if await running_in(engine)]
                assert len(working) == 1
                working[0].kill()
    assert [event.id.rpartition(".")[2] for event in events] == [str(n) for n in range(1, len(events) + 1)]
    assert notice_codes(events) == ["model_switched"]
    assert events[-1].field("finish_reason") == "length"
    assert len(text_of(events)) > len(text_of(events[:before])) + 10
    assert "\ufffd" not in text_of(events), "a character was cut in two where the other began"
    usage = events[-1].field("usage")
    assert isinstance(usage, dict)
    assert usage["answer_tokens"] == 160
