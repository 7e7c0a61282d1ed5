"""What a newcomer asks first: README's question, the page's examples and their like, each with a follow-up.

The questions of `newcomer.jsonl` were written without a look at the code. The scripted model says yes to every probe,
so the test holds the search, the units and the follow-ups, not a model's judgement.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.e2e.conftest import Product, scripted_model, served
from tests.e2e.events import text_of

pytestmark = [pytest.mark.anyio, pytest.mark.e2e]

BANK = Path(__file__).parents[2] / "evals/datasets/hanbit"
LEAST_RIGHT = 19
"""Of 20 turns."""


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[Product]:
    folder = tmp_path_factory.mktemp("newcomer")
    with scripted_model(folder) as endpoints:
        endpoints |= {"LLM_PROFILE": "cpu", "TURN__ANSWER": "quote"}
        endpoints |= {"REDIS__SLOW_AFTER": "2"}  # beside other tests: a late reply would be a turn without its history
        endpoints |= {"PASSAGE_TOKENS": "4000"}  # the scripted model's tokens are bytes, three a Korean syllable
        with served(folder, redis_url, endpoints, BANK / "documents") as running:
            yield running


def plain(text: str) -> str:
    """Return a text without blanks and marks of tables."""
    return "".join(text.replace("|", " ").split())


async def test_newcomers_questions_are_answered_with_the_passages_that_state_it(newcomer: Product) -> None:
    turns: list[dict[str, Any]] = [
        json.loads(line) for line in (BANK / "newcomer.jsonl").read_text("utf-8").splitlines()
    ]
    await newcomer.tell(probe=0.99)
    wrong, conversations = list[str](), dict[str, str]()
    async with newcomer.client(uuid4().hex) as http:
        for turn in turns:
            before = conversations.get(turn["dialogue"])
            more = {"conversation_id": before} if before else {}
            events = await newcomer.ask(http, turn["text"], **more)
            conversations[turn["dialogue"]] = str(events[0].field("conversation_id"))
            shown = plain(text_of(events))
            if not any(plain(expected["passage"]) in shown for expected in turn["expected"]):
                wrong.append(f"{turn['text']}: {text_of(events)[:200]}")
    assert len(turns) == 20
    assert len(turns) - len(wrong) >= LEAST_RIGHT, "\n".join(wrong)
