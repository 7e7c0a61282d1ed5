"""The whole product over a model that is no vLLM: chat completions, and nothing beside."""

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.e2e import model
from tests.e2e.conftest import KOREAN, Product, audited, new_customer, scripted_model, served
from tests.e2e.events import end_of, notice_codes, text_of

pytestmark = [pytest.mark.anyio, pytest.mark.e2e, pytest.mark.services]

SHIPPED = Path(__file__).parents[2] / "chatbot/calibration.yaml"
LONG = "중도해지 금리는 연 0.5%입니다. " * 40
QUOTING = {"answer": None, "probe": None, "drop_after": None, "token_seconds": 0.0}
"""How the model is found and left."""


@pytest.fixture(scope="module")
def hosted(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """The product, whose one endpoint refuses every route and field of vLLM's own."""
    folder = tmp_path_factory.mktemp("hosted")
    with scripted_model(folder) as endpoints:
        httpx2.post(f"{endpoints['LLM_URLS']}/script", json={"plain": True}).raise_for_status()
        with served(folder, redis_url, endpoints, CALIBRATION_FILE=str(SHIPPED)) as product:
            yield product


async def test_its_answer_is_checked_cited_and_charged_as_it_counts(hosted: Product) -> None:
    async with hosted.client(new_customer()) as http:
        events = await hosted.ask(http, KOREAN)
        names = [event.name for event in events]
        assert notice_codes(events) == ["not_resumable"]
        assert names.index("sources") < names.index("notice") < names.index("token")
        end = end_of(events)
        assert (end.name, end.field("finish_reason"), end.field("written")) == ("done", "stop", True)
        assert "citation" in names
        counted = (await model.requests(hosted.model_url))[-1]
        assert end.field("usage") == {
            "prompt_tokens": counted["prompt_tokens"],
            "cached_tokens": 0,
            "answer_tokens": counted["answer_tokens"],
            "thinking_tokens": 0,
        }
        conversation = await http.get(f"/v1/conversations/{events[0].field('conversation_id')}")
        kept = conversation.json()["messages"][-1]
        assert (kept["text"], kept.get("notices", [])) == (text_of(events), []), "how it was made is no part of it"


async def test_a_hosted_answer_that_breaks_off_ends_in_an_error(hosted: Product) -> None:
    await hosted.tell(answer=LONG, probe=0.99, drop_after=60)
    try:
        async with hosted.client(new_customer()) as http:
            events = await hosted.ask(http, KOREAN)
    finally:
        await hosted.tell(**QUOTING)
    end = end_of(events)
    assert (end.name, end.field("code")) == ("error", "model_unavailable")
    assert "1599-0000" in str(end.field("handoff"))
    assert "연 0.5%" in text_of(events), "what was shown stays"
    assert notice_codes(events) == ["not_resumable"]
    assert audited(hosted.data / "bank.db", events[0].answer_id) == ["closed", "opened"]


async def test_a_calibration_of_another_model_is_reported_once(hosted: Product) -> None:
    async with hosted.client(new_customer()) as http:
        ready = await http.get("/readyz")
    assert (ready.status_code, ready.json()["calibration"]) == (200, "does not fit")
    assert (hosted.data.parent / "chat.log").read_text("utf-8").count("calibration_mismatch") == 1
