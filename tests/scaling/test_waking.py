"""A chatbot whose models are all away still tells the scaler that answers are wanted."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_server.scripted import write_tokenizer
from tests.charts.promql import Asked, asked
from tests.charts.rendering import NAME, named, render
from tests.e2e.conftest import Product, served
from tests.e2e.metrics import scraped

pytestmark = [pytest.mark.anyio, pytest.mark.e2e]

# What Prometheus adds, and no process says of itself.
ADDED = {"namespace"}


@pytest.fixture
def asleep(tmp_path: Path, redis_url: str) -> Iterator[Product]:
    """A product whose only model does not run."""
    write_tokenizer(tmp_path / "tokenizer")
    model = {"LLM_URLS": "http://127.0.0.1:1", "LLM_TOKENIZER": str(tmp_path / "tokenizer"), "LLM_PROFILE": "scripted"}
    with served(tmp_path, redis_url, model) as product:
        yield product


async def samples_of(product: Product, of: Asked) -> list[float]:
    """Return the samples of one selector of the query."""
    wanted = [(label, value.split("|")) for label, _, value in of.matchers if label not in ADDED]
    return [
        sample.value
        for sample in await scraped(product.url)
        if sample.name == of.metric and all(sample.labels[label] in values for label, values in wanted)
    ]


async def test_a_question_that_no_model_can_answer_raises_what_the_scaler_counts(asleep: Product) -> None:
    scaler = named(render("values-staging"), "ScaledObject", f"{NAME}-llm-l4")
    counters = [of for of in asked(scaler["spec"]["triggers"][0]["metadata"]["query"]) if of.metric.endswith("_total")]
    assert len(counters) == 2
    for of in counters:
        samples = await samples_of(asleep, of)
        assert samples, f"rate() does not see the first event of {of.metric}"
        assert sum(samples) == 0
    async with asleep.client() as http:
        events = await asleep.ask(http, "정기예금 기본 금리는 얼마인가요?")
    assert events[-1].name == "done"
    assert [sum(await samples_of(asleep, of)) for of in counters if of.metric == "chatbot_ladder_total"] == [1]
