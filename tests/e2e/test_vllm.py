"""Real vLLM behind the real API: tokens stream, usage is the model's, and one of two may die."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from tests.e2e.conftest import ENGLISH, KOREAN, Product, served, until
from tests.e2e.engine import PROFILE, Engine
from tests.e2e.events import SentEvent, notice_codes, read_events, text_of
from tests.e2e.metrics import total

pytestmark = [pytest.mark.anyio, pytest.mark.e2e, pytest.mark.vllm, pytest.mark.timeout(600)]


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
    # A machine that is busy with other things may be slower than the profile: its deadlines are tried elsewhere.
    profile = folder / "patient.yaml"
    profile.write_text("about: cpu-small with time\ndeadlines: {prefill: 60, base: 20, answer: 180}\n", "utf-8")
    models.write_text(json.dumps([{**entry, "profile": str(profile), "extra_body": without_end}]), "utf-8")
    with served(folder, redis_url, vllm, MODELS_FILE=str(models), TURN__ANSWERABILITY__THRESHOLD="0") as running:
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


# The last test of the session: the engines are shared.
async def test_a_vllm_that_is_killed_mid_answer_is_succeeded_by_the_other(
    flowing: Product, engines: list[Engine]
) -> None:
    events: list[SentEvent] = []
    before = 0
    # Words are shown once their sentence is checked, which may be late: 400 tokens leave the model enough to write.
    async with (
        flowing.client() as http,
        http.stream("POST", "/v1/chat", json={"message": KOREAN, "max_answer_tokens": 400}) as response,
    ):
        async for event in read_events(response):
            events.append(event)
            if event.name == "token" and not before:
                before = len(events)
                working = [engine for engine in engines if await running_in(engine)]
                assert len(working) == 1
                working[0].kill()
    assert [event.id.rpartition(".")[2] for event in events] == [str(n) for n in range(1, len(events) + 1)]
    assert "model_switched" in notice_codes(events)
    assert events[-1].field("finish_reason") == "length"
    assert len(text_of(events)) > len(text_of(events[:before])) + 10
    assert "\ufffd" not in text_of(events), "a character was cut in two where the other began"
    usage = events[-1].field("usage")
    assert isinstance(usage, dict)
    assert usage["answer_tokens"] == 400
