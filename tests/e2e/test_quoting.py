"""With `answer: quote` an answer consists of the bank's own words; a model is asked where the search is not clear."""

import json
from collections.abc import Iterator
from uuid import uuid4

import pytest

from chatbot.quotes import NOT_CERTAIN
from tests.e2e.conftest import Product, served
from tests.e2e.events import SentEvent, text_of
from tests.e2e.model import requests
from tests.e2e.test_replay import admin

pytestmark = [pytest.mark.anyio, pytest.mark.e2e]

QUESTION = "샘물 정기예금의 기본 금리와 가입 기간을 알려 주세요"
UNCLEAR = "샘물 정기예금에 우주여행 보험과 반려견 미용이 포함되나요?"


@pytest.fixture(scope="module")
def quoting(product: Product, tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[Product]:
    model = {name: product.environment[name] for name in ("LLM_URLS",)}
    with served(tmp_path_factory.mktemp("quoting"), redis_url, model | {"LLM_PROFILE": "cpu-small"}) as running:
        yield running


async def asked(product: Product, question: str = QUESTION, **behaviour: object) -> list[SentEvent]:
    await product.tell(answer="모델이 쓴 문장입니다.", **behaviour)
    try:
        async with product.client(uuid4().hex) as http:
            return await product.ask(http, question)
    finally:
        await product.restore()


async def test_the_answer_is_what_the_passages_say_and_the_model_writes_nothing(quoting: Product) -> None:
    events = await asked(quoting, probe=0.99)
    done = json.loads(events[-1].data)
    quotes = [str(event.field("quote")) for event in events if event.name == "citation"]
    assert (done["finish_reason"], done["grounded"], done["quoted"], done["written"]) == ("stop", True, True, False)
    assert quotes
    assert all(quote in text_of(events) for quote in quotes)
    assert "모델이 쓴" not in text_of(events)


async def test_an_unclear_question_is_quoted_as_near_and_charged_for_what_the_model_read(quoting: Product) -> None:
    before = len(await requests(quoting.model_url))
    events = await asked(quoting, UNCLEAR, probe=0.97)
    done = json.loads(events[-1].data)
    assert text_of(events).startswith(NOT_CERTAIN["ko"])
    assert done["quoted"]
    assert done["usage"]["prompt_tokens"] > 0
    assert done["usage"]["answer_tokens"] >= 1
    assert len(await requests(quoting.model_url)) > before


async def test_a_replay_finds_the_same_words(quoting: Product) -> None:
    events = await asked(quoting, UNCLEAR, probe=0.97)
    await quoting.tell(probe=0.97)
    async with admin(quoting) as http:
        path = f"/v1/admin/answers/{events[0].field('answer_id')}/replay"
        replay = (await http.post(path, json={})).json()
    await quoting.restore()
    standings = {finding["what"]: finding["standing"] for finding in replay["findings"]}
    assert {standings[part] for part in ("prompt", "grounded", "answer")} == {"same"}


async def test_a_follow_up_is_not_answered_with_the_answer_before_it(quoting: Product) -> None:
    await quoting.tell(probe=0.97)
    async with quoting.client(uuid4().hex) as http:
        opening = await quoting.ask(http, "샘물 정기예금을 중도해지하면 금리는 얼마예요?")
        conversation = {"conversation_id": opening[0].field("conversation_id")}
        answers = [
            opening,
            *[await quoting.ask(http, text, **conversation) for text in ("우대 조건은요?", "우대 조건은요")],
        ]
    await quoting.restore()
    units = [[str(event.field("quote")) for event in events if event.name == "citation"] for events in answers]
    assert all(units)
    assert units[0] != units[1]
    assert "급여를 한샘은행 계좌로 받으면" in units[1][0]


async def test_each_of_two_things_that_are_asked_has_its_unit(quoting: Product) -> None:
    events = await asked(quoting, "샘물 정기예금은 얼마부터 되고 중도해지 금리는 얼마예요?", probe=0.97)
    assert len([event for event in events if event.name == "citation"]) == 2


async def test_what_no_passage_is_near_to_is_refused(quoting: Product) -> None:
    events = await asked(quoting, UNCLEAR, probe=0.0001)
    done = json.loads(events[-1].data)
    assert (done["finish_reason"], done["grounded"], done["quoted"]) == ("refused", False, False)


async def test_words_of_the_model_are_told_from_quotes(product: Product) -> None:
    await product.tell(answer="샘물 정기예금의 가입 기간은 12개월입니다.", probe=0.99)
    async with product.client(uuid4().hex) as http:
        events = await product.ask(http, QUESTION)
        whole = (await http.post("/v1/chat", json={"message": QUESTION, "stream": False})).json()
    await product.restore()
    done = json.loads(events[-1].data)
    assert (done["quoted"], done["grounded"]) == (False, False)
    assert whole["quoted"] is False


@pytest.mark.parametrize("way", ["quote", "written"])
async def test_where_there_is_a_demo_login_the_caller_chooses_whose_words_answer(product: Product, way: str) -> None:
    await product.tell(answer="샘물 정기예금의 가입 기간은 12개월입니다.", probe=0.99)
    async with product.client(uuid4().hex) as http:
        done = json.loads((await product.ask(http, QUESTION, answer=way))[-1].data)
        wrong = await http.post("/v1/chat", json={"message": QUESTION, "answer": "poem"})
    await product.restore()
    assert (done["quoted"], done["written"]) == (way == "quote", way == "written")
    assert wrong.status_code == 422
