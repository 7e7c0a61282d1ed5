"""Bounds on what is streamed again."""

from collections.abc import Iterator

import httpx2
import pytest

from tests.e2e.conftest import KOREAN, Product, new_customer, scripted_model, served
from tests.e2e.events import end_of, read_events

pytestmark = [pytest.mark.anyio, pytest.mark.e2e]


@pytest.fixture(scope="module")
def bounded(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[Product]:
    folder = tmp_path_factory.mktemp("bounded")
    settings = {"READS__BYTES_PER_MINUTE": "10000"}
    with scripted_model(folder) as model, served(folder, redis_url, model, **settings) as running:
        yield running


async def test_answers_that_are_streamed_again_and_again_are_refused_with_the_wait(bounded: Product) -> None:
    async with bounded.client(new_customer()) as http:
        asked = await bounded.ask(http, KOREAN)
        address = f"/v1/answers/{asked[0].answer_id}/events"
        refused: httpx2.Response | None = None
        for _ in range(30):
            async with http.stream("GET", address) as response:
                if response.status_code != 200:
                    await response.aread()
                    refused = response
                    break
                again = [event async for event in read_events(response)]
                assert [event.data for event in again] == [event.data for event in asked]
        assert refused is not None, "nobody refuses replays"
        assert (refused.status_code, refused.json()["dimension"]) == (429, "bytes_read_per_minute")
        assert int(refused.headers["retry-after"]) > 0
        assert end_of(await bounded.ask(http, KOREAN)).name == "done", "questions are not refused for it"
