"""A recording asks the model as a turn does."""

import pytest

from chatbot.tokenizer import Tokenizer
from evals.quality.record import Recorder, checked_today
from knowledge.index import Index
from llm_server.scripted import Behaviour
from tests.chatbot.conftest import tokenizer
from tests.chatbot.models.scripted_pool import serve
from tests.chatbot.proof.test_audit_replay import DEPOSIT, index, terms

__all__ = ["index", "terms", "tokenizer"]


@pytest.mark.anyio
async def test_what_the_model_chooses_where_all_was_withheld_is_recorded_with_the_quotes(
    tokenizer: Tokenizer, index: Index
) -> None:
    question = "정기예금의 기본 금리와 중도해지 금리는 얼마인가요?"
    async with serve(tokenizer, [Behaviour(chooses=(0.2, 0.6))]) as served:
        recorder = Recorder(served.models, index)
        choices = [
            await recorder.choice(checked_today(question, [DEPOSIT], text).quotes(""), [DEPOSIT], question, before=())
            for text in ("정기예금의 기본 금리는 연 7.7%입니다.", "정기예금의 기본 금리는 연 3.1%입니다.")
        ]
        assert served.started() == 1
    withheld, shown = choices
    assert [share for _, share in withheld] == pytest.approx([0.25, 0.75], abs=0.01)
    assert all(quote in DEPOSIT.text for quote, _ in withheld)
    assert shown == ()
