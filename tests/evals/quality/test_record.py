"""A recording asks the model as a turn does."""

from dataclasses import replace
from pathlib import Path

import pytest

from evals.quality.record import Recorder
from knowledge.passage import Hit
from llm_server.scripted import Behaviour
from tests.chatbot.models.scripted_pool import serve
from tests.passages import DEPOSIT, indexed_passages

OTHER = replace(DEPOSIT, document_id="other", text="정기예금의 만기는 12개월입니다.")


def hits(lead: float) -> list[Hit]:
    scores = (3.0 + lead, 3.0)
    return [Hit(passage=p, score=s, dense=0.9, terms=3.0) for p, s in zip((DEPOSIT, OTHER), scores, strict=True)]


@pytest.mark.anyio
async def test_the_models_choice_is_recorded_in_both_orders_where_units_are_close(tmp_path: Path) -> None:
    question = "정기예금의 기본 금리와 중도해지 금리는 얼마인가요?"
    async with (
        indexed_passages(tmp_path / "index") as index,
        serve([Behaviour(chooses=(0.2, 0.6))]) as served,
    ):
        recorder = Recorder(served.models, index)
        close = await recorder.choices(question, hits(0.1), ())
        clear = await recorder.choices(question, hits(2.0), ())
        assert served.started() == 2
    assert [list(choice) for choice in close] == [pytest.approx([0.25, 0.75], abs=0.01)] * 2
    assert clear == ()
