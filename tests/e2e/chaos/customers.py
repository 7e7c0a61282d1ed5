"""Customers who talk, leave and come back, over as many connections as it takes; and what each of them has read."""

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from uuid import uuid4

import httpx2

from tests.e2e.conftest import ENGLISH, KOREAN
from tests.e2e.events import SentEvent, read_events

PATIENCE = 90.0
"""Seconds after which a customer gives an answer up."""
AGAIN_SECONDS = 0.3
"""Between two connections, as the stream tells an EventSource (`retry`), and a little less."""
QUESTIONS = (
    KOREAN,
    ENGLISH,
    "샘물 정기예금의 기본 금리와 가입 기간이 어떻게 되나요?",
    "급여를 받으면 우대금리가 얼마나 되나요?",
    "How long does an overseas transfer take?",
    "How much may I send abroad in a year without proof of purpose?",
)


@dataclass(slots=True, kw_only=True)
class Reading:
    """One question of a customer, and the events that were read of its answer."""

    sub: str
    question: str
    key: str = field(default_factory=lambda: uuid4().hex)
    events: list[SentEvent] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    """Of the refusals on the way."""
    refused: str = ""
    """Why there is no answer, where the customer was refused for good."""

    @property
    def ended(self) -> bool:
        """Whether the answer was read to its end."""
        return bool(self.events) and self.events[-1].name in {"done", "error"}

    @property
    def answer_id(self) -> str:
        return self.events[0].answer_id if self.events else ""

    @property
    def conversation_id(self) -> str | None:
        """None until the answer is accepted; one of which nothing could be logged begins and ends with `error`."""
        accepted = next((event for event in self.events if event.name == "accepted"), None)
        return None if accepted is None else str(accepted.field("conversation_id"))


async def talk(
    client: Callable[[str], httpx2.AsyncClient], dice: random.Random, readings: list[Reading], stopping: asyncio.Event
) -> None:
    """Have conversations of one to three questions, each by a new customer, until told to stop."""
    while not stopping.is_set():
        sub, conversation_id = f"customer-{uuid4().hex}", None
        async with client(sub) as http:
            for _ in range(dice.randint(1, 3)):
                if stopping.is_set():
                    return
                reading = Reading(sub=sub, question=dice.choice(QUESTIONS))
                readings.append(reading)
                await read(http, reading, conversation_id, dice)
                conversation_id = reading.conversation_id or conversation_id
                await asyncio.sleep(dice.uniform(0, 1))


async def read(http: httpx2.AsyncClient, reading: Reading, conversation_id: str | None, dice: random.Random) -> None:
    """Ask, and read to the end, as an EventSource does; now and then the customer leaves for a moment."""
    deadline = time.monotonic() + PATIENCE
    leaves_after = dice.randint(1, 60) if dice.random() < 0.3 else None
    away = dice.uniform(0, 4)
    while not (reading.ended or reading.refused) and time.monotonic() < deadline:
        try:
            left = await _connection(http, reading, conversation_id, leaves_after)
        except httpx2.TransportError:
            left = False
        if left:
            leaves_after = None
        await asyncio.sleep(away if left else AGAIN_SECONDS)


async def _connection(
    http: httpx2.AsyncClient, reading: Reading, conversation_id: str | None, leaves_after: int | None
) -> bool:
    """Read over one connection; return whether the customer broke it off."""
    if reading.events:
        address, last = f"/v1/answers/{reading.answer_id}/events", reading.events[-1].id
        opened = http.stream("GET", address, headers={"last-event-id": last})
    else:
        asked = {"message": reading.question} | ({"conversation_id": conversation_id} if conversation_id else {})
        opened = http.stream("POST", "/v1/chat", json=asked, headers={"idempotency-key": reading.key})
    async with opened as response:
        if response.status_code != 200:
            reading.statuses.append(response.status_code)
            if response.status_code in {400, 403, 413, 422}:
                reading.refused = f"{response.status_code} {(await response.aread()).decode()[:200]}"
            return False
        async with aclosing(read_events(response)) as events:
            async for event in events:
                if not event.id:  # none of the answer's: this connection cannot go on
                    return False
                reading.events.append(event)
                if leaves_after is not None and len(reading.events) >= leaves_after and not reading.ended:
                    return True
    return False
