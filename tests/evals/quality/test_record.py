"""A recording asks the model as a turn does."""

from dataclasses import replace
from pathlib import Path

import pytest

from chatbot.grounding import NO_QUOTES, QuoteCandidates, quoted_answer
from evals.quality.record import Recorder, checked_today
from evals.sample_bank import sample_banks
from llm_server.scripted import Behaviour
from tests.chatbot.models.scripted_pool import serve
from tests.passages import DEPOSIT, indexed_passages

LONG_DEPOSIT = replace(DEPOSIT, text=DEPOSIT.text + " 지점 주차장은 평일에 엽니다." * 40)
"""More than is quoted whole."""


@pytest.mark.anyio
async def test_the_model_s_choice_among_quotes_is_recorded_where_grounding_withheld_the_answer(
    tmp_path: Path,
) -> None:
    question = "정기예금의 기본 금리와 중도해지 금리는 얼마인가요?"
    async with (
        indexed_passages(tmp_path / "index") as index,
        serve([Behaviour(chooses=(0.2, 0.6))]) as served,
    ):
        recorder = Recorder(served.models, index)
        ranked = QuoteCandidates.of(question, [LONG_DEPOSIT]).ranked()
        quoted = quoted_answer(question, ranked, [LONG_DEPOSIT])
        choices = [
            await recorder.choice(
                quoted
                if checked_today(question, [LONG_DEPOSIT], text, sample_banks().first).withheld_whole
                else NO_QUOTES,
                [LONG_DEPOSIT],
                question,
                before=(),
            )
            for text in ("정기예금의 기본 금리는 연 7.7%입니다.", "정기예금의 기본 금리는 연 3.1%입니다.")
        ]
        assert served.started() == 1
    withheld, shown = choices
    assert [share for _, share in withheld] == pytest.approx([0.25, 0.75], abs=0.01)
    assert all(quote in LONG_DEPOSIT.text for quote, _ in withheld)
    assert shown == ()
