"""A chatbot without any model still counts the questions by which the scaler wakes a pool."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.charts.promql import Selector, selectors_of
from tests.charts.rendering import NAME, named, render
from tests.e2e.conftest import Product, served
from tests.e2e.metrics import scraped

pytestmark = [pytest.mark.anyio, pytest.mark.e2e]

# Labels that Prometheus adds to the samples of a process.
ADDED_LABELS = {"namespace", "service"}


@pytest.fixture
def without_model(tmp_path: Path, redis_url: str) -> Iterator[Product]:
    """A product whose only model does not run."""
    model = {"LLM_URLS": "http://127.0.0.1:1", "LLM_PROFILE": "scripted"}
    with served(tmp_path, redis_url, model) as product:
        yield product


async def samples_of(product: Product, selector: Selector) -> list[float]:
    """Return the values of the samples that match a selector of the query."""
    matchers = [(label, value.split("|")) for label, _, value in selector.matchers if label not in ADDED_LABELS]
    return [
        sample.value
        for sample in await scraped(product.url)
        if sample.name == selector.metric and all(sample.labels[label] in values for label, values in matchers)
    ]


async def test_a_question_that_no_model_can_answer_is_counted_by_the_scaler_s_query(without_model: Product) -> None:
    scaler = named(render("values-staging"), "ScaledObject", f"{NAME}-llm-l4")
    query = scaler["spec"]["triggers"][0]["metadata"]["query"]
    counters = {selector.metric: selector for selector in selectors_of(query) if selector.metric.endswith("_total")}
    assert len(counters) == 2
    for metric, selector in counters.items():
        samples = await samples_of(without_model, selector)
        assert samples, f"rate() does not see the first event of {metric}"
        assert sum(samples) == 0
    async with without_model.client() as http:
        events = await without_model.ask(http, "정기예금 기본 금리는 얼마인가요?")
    assert events[-1].name == "done"
    assert sum(await samples_of(without_model, counters["chatbot_degraded_answers_total"])) == 1
