"""A shadow model gets the customers' questions; only counters show its answers, and an emergency stop ends it too."""

import json
from collections.abc import Iterator
from dataclasses import replace
from uuid import uuid4

import pytest

from tests.e2e.conftest import ENGLISH, Product, scripted_model, served, until
from tests.e2e.events import SentEvent
from tests.e2e.metrics import scraped

pytestmark = [pytest.mark.anyio, pytest.mark.e2e]


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[tuple[Product, Product]]:
    """A product, twice: with the address of its model, and with that of its shadow model."""
    folder = tmp_path_factory.mktemp("tried")
    (folder / "trial").mkdir()
    with scripted_model(folder) as main, scripted_model(folder / "trial") as trial:
        shared = {"profile": "scripted"}
        groups = [
            {"name": "main", "urls": main["LLM_URLS"], **shared},
            {"name": "trial", "group": "shadow", "weight": 0.999_999, "urls": trial["LLM_URLS"], **shared},
        ]
        file = folder / "models.yaml"
        file.write_text(json.dumps(groups), encoding="utf-8")  # JSON is YAML
        with served(
            folder, redis_url, {"MODELS_FILE": str(file), "LLM_URLS": "", "REDIS__SLOW_AFTER": "2"}
        ) as product:  # beside other tests a late reply would be a notice
            yield replace(product, model_url=main["LLM_URLS"]), replace(product, model_url=trial["LLM_URLS"])


def without_names(events: list[SentEvent]) -> list[tuple[str, bytes]]:
    """Return what a customer got, but for the ids that are new with every answer."""
    return [(event.name, event.data) for event in events if event.name in {"token", "citation", "notice"}]


def charged(events: list[SentEvent]) -> tuple[int, int]:
    usage = events[-1].field("usage")
    assert isinstance(usage, dict)
    return usage["prompt_tokens"], usage["answer_tokens"]


async def verdicts(product: Product) -> dict[str, int]:
    counted = [sample for sample in await scraped(product.url) if sample.name == "chatbot_shadow_answers_total"]
    return {sample.labels["verdict"]: int(sample.value) for sample in counted}


async def test_the_customer_sees_and_pays_nothing_of_it(tried: tuple[Product, Product]) -> None:
    product, trial = tried
    await trial.tell(fail_status=500)
    async with product.client(uuid4().hex) as http:
        alone = await product.ask(http, ENGLISH)
        await until(lambda: _judged(product, failed=1))
        await trial.restore()
        beside = await product.ask(http, ENGLISH)
        await until(lambda: _judged(product, failed=1, grounded=1))
    assert without_names(alone) == without_names(beside)
    assert charged(alone) == charged(beside)


async def test_an_emergency_stop_ends_it_too(tried: tuple[Product, Product]) -> None:
    product, trial = tried
    await trial.tell(token_seconds=5)
    async with product.client(uuid4().hex) as http:
        await product.ask(http, ENGLISH)
    await until(trial.running)
    async with product.client("park", role="platform") as http:
        (await http.post("/v1/admin/stop", json={"reason": "a test"})).raise_for_status()
        await until(trial.idle, 3)
        (await http.post("/v1/admin/resume", json={"reason": "it is over"})).raise_for_status()


async def _judged(product: Product, **wanted: int) -> bool:
    return await verdicts(product) == wanted
