"""With a profile that says `answer: quote` an answer is the passages' own sentences, among which the model chooses."""

import json
from collections.abc import Iterator
from uuid import uuid4

import pytest

from tests.e2e.conftest import Product, served
from tests.e2e.events import SentEvent, text_of
from tests.e2e.model import requests
from tests.e2e.test_replay import admin

pytestmark = [pytest.mark.anyio, pytest.mark.e2e]

QUESTION = "샘물 정기예금의 기본 금리와 가입 기간을 알려 주세요"
UNANSWERED = "샘물 정기예금에 우주여행 보험과 반려견 미용이 포함되나요?"
NEVER_SAID = "샘물 정기예금의 가입 기간은 12개월입니다."
SURE = (0.1, 0.9, 0.0)


@pytest.fixture(scope="module")
def quoting(product: Product, tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[Product]:
    model = {name: product.environment[name] for name in ("LLM_URLS",)}
    with served(tmp_path_factory.mktemp("quoting"), redis_url, model | {"LLM_PROFILE": "cpu-small"}) as running:
        yield running


async def asked(product: Product, **behaviour: object) -> list[SentEvent]:
    await product.tell(answer=NEVER_SAID, probe=0.99, **behaviour)
    try:
        async with product.client(uuid4().hex) as http:
            return await product.ask(http, QUESTION)
    finally:
        await product.restore()


async def test_the_answer_is_what_the_passages_say_and_the_model_writes_nothing(quoting: Product) -> None:
    events = await asked(quoting)
    done = json.loads(events[-1].data)
    quotes = [str(event.field("quote")) for event in events if event.name == "citation"]
    assert (done["finish_reason"], done["grounded"], done["quoted"]) == ("stop", True, True)
    assert done["usage"]["answer_tokens"] == done["usage"]["prompt_tokens"] == 0
    assert len(quotes) >= 2
    assert all(quote in text_of(events) for quote in quotes)
    latest = (await requests(quoting.model_url))[-2:]  # the server keeps the last of them
    assert [request["top_logprobs"] is not None for request in latest] == [True, True], "a probe, and which quote"


async def test_a_quote_that_the_model_is_sure_of_is_shown_alone_and_a_replay_finds_the_same(quoting: Product) -> None:
    both = [str(event.field("quote")) for event in await asked(quoting) if event.name == "citation"]
    events = await asked(quoting, chooses=SURE)
    assert [str(event.field("quote")) for event in events if event.name == "citation"] == both[1:2]
    await quoting.tell(probe=0.99, chooses=SURE)
    async with admin(quoting) as http:
        path = f"/v1/admin/answers/{events[0].field('answer_id')}/replay"
        replay = (await http.post(path, json={"ask_model": True})).json()
    standings = {finding["what"]: finding["standing"] for finding in replay["findings"]}
    assert {standings[part] for part in ("probes", "model", "shown", "repair", "answer")} == {"same"}
    await quoting.restore()


async def test_what_the_passages_do_not_answer_is_refused_as_ever(quoting: Product) -> None:
    await quoting.tell(probe=0.01)
    async with quoting.client(uuid4().hex) as http:
        events = await quoting.ask(http, UNANSWERED)
    await quoting.restore()
    done = json.loads(events[-1].data)
    assert (done["finish_reason"], done["grounded"], done["quoted"]) == ("refused", False, False)


async def test_words_of_the_model_are_told_from_quotes(product: Product) -> None:
    await product.tell(answer=NEVER_SAID, probe=0.99)
    async with product.client(uuid4().hex) as http:
        events = await product.ask(http, QUESTION)
        whole = (await http.post("/v1/chat", json={"message": QUESTION, "stream": False})).json()
    await product.restore()
    assert json.loads(events[-1].data)["quoted"] is False
    assert whole["quoted"] is False
