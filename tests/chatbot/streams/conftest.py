"""Answers that run in a task group of the test."""

from collections.abc import AsyncGenerator
from uuid import uuid4

import anyio
import pytest
from anyio.abc import TaskGroup

from chatbot.streams.live import LiveAnswer
from chatbot.streams.log import AnswerId
from knowledge.identity import Principal


def new_answer(who: Principal) -> LiveAnswer:
    return LiveAnswer(AnswerId(uuid4().hex), who, conversation_id=uuid4().hex)


@pytest.fixture
async def tasks() -> AsyncGenerator[TaskGroup]:
    async with anyio.create_task_group() as group:
        yield group
        group.cancel_scope.cancel()
