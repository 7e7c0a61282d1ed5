"""With `answer: quote` an answer consists of the bank's own words; a model is asked where the search is not clear."""

import json
from uuid import uuid4

import pytest

from chatbot.quotes import NOT_CERTAIN
from tests.e2e.conftest import Product
from tests.e2e.events import SentEvent, text_of
from tests.e2e.model import requests
from tests.e2e.test_replay import admin

pytestmark = [pytest.mark.anyio, pytest.mark.e2e]

QUESTION = "샘물 정기예금의 기본 금리와 가입 기간을 알려 주세요"
UNCLEAR = "샘물 정기예금에 우주여행 보험과 반려견 미용이 포함되나요?"


async def quoted(product: Product, question: str = QUESTION, **behaviour: object) -> list[SentEvent]:
    async with product.telling(answer="모델이 쓴 문장입니다.", **behaviour), product.client(uuid4().hex) as http:
        return await product.ask(http, question, answer="quote")


async def test_a_quoted_answer_has_only_words_of_its_passages(product: Product) -> None:
    events = await quoted(product, probe=0.99)
    done = json.loads(events[-1].data)
    quotes = [str(event.field("quote")) for event in events if event.name == "citation"]
    assert (done["finish_reason"], done["grounded"], done["quoted"], done["written"]) == ("stop", True, True, False)
    assert quotes
    assert all(quote in text_of(events) for quote in quotes)
    assert "모델이 쓴" not in text_of(events)


async def test_an_unclear_question_is_answered_as_uncertain_and_its_probes_are_charged(product: Product) -> None:
    before = len(await requests(product.model_url))
    events = await quoted(product, UNCLEAR, probe=0.97)
    done = json.loads(events[-1].data)
    assert text_of(events).startswith(NOT_CERTAIN["ko"])
    assert done["quoted"]
    assert done["usage"]["prompt_tokens"] > 0
    assert done["usage"]["answer_tokens"] >= 1
    assert len(await requests(product.model_url)) > before


async def test_a_replay_finds_the_same_words(product: Product) -> None:
    events = await quoted(product, UNCLEAR, probe=0.97)
    await product.tell(probe=0.97)
    async with admin(product) as http:
        path = f"/v1/admin/answers/{events[0].field('answer_id')}/replay"
        replay = (await http.post(path, json={})).json()
    await product.restore()
    standings = {finding["what"]: finding["standing"] for finding in replay["findings"]}
    assert {standings[part] for part in ("prompt", "grounded", "answer")} == {"same"}


async def test_a_question_without_a_near_passage_is_refused(product: Product) -> None:
    events = await quoted(product, UNCLEAR, probe=0.0001)
    done = json.loads(events[-1].data)
    assert (done["finish_reason"], done["grounded"], done["quoted"]) == ("refused", False, False)
