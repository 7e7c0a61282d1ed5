"""Whose words an answer consists of: the operator's choice, and on `make run` the caller's."""

from dataclasses import dataclass, field
from typing import cast

import pytest

from chatbot.errors import Unprocessable
from chatbot.services import Services, TurnSettings
from chatbot.turns import Question, way_of
from knowledge.profiles import AnswerMode


@dataclass
class Parts:
    chooses_answer: bool
    settings: TurnSettings = field(default_factory=lambda: TurnSettings(answer=AnswerMode.QUOTE))


def way(asked: AnswerMode | None, *, chooses: bool) -> AnswerMode | None:
    return way_of(Question(text="?", answer=asked), cast("Services", Parts(chooses)))


def test_a_caller_who_chooses_nothing_gets_the_operators_way() -> None:
    assert [way(None, chooses=chooses) for chooses in (True, False)] == [AnswerMode.QUOTE, AnswerMode.QUOTE]


def test_only_where_there_is_a_demo_login_the_caller_chooses() -> None:
    assert way(AnswerMode.WRITTEN, chooses=True) is AnswerMode.WRITTEN
    with pytest.raises(Unprocessable, match="TURN__ANSWER"):
        way(AnswerMode.WRITTEN, chooses=False)
