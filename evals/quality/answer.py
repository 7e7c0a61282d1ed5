"""Ask a running product over HTTP as a customer does, and record what the customer sees."""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from uuid import uuid4

import aiohttp
import anyio
import msgspec
from redis.asyncio import Redis

from chatbot.api import LocalSigner
from chatbot.conversations import History, HistorySettings, StoredMessage
from chatbot.events import Accepted, Citation, Done, Event, Failed, Notice, Related, Sources, Token
from chatbot.redis_client import RedisBreaker, RedisBreakerSettings
from evals.event_stream import read_events
from evals.questions import CustomerAnswer, Dialogue, Sample
from knowledge.identity import Principal

LONGEST_ANSWER = 600.0
"""Seconds."""
MOST_ATTEMPTS = 20
"""Maximum number of times to ask a question that the product wants to be retried."""

HistorySeed = Callable[[Principal, Sample], Awaitable[str]]
"""Writes the conversation before a question and returns its id."""


@dataclass(slots=True)
class _ReceivedStream:
    """The events of one stream; times in seconds."""

    began: float = field(default_factory=time.perf_counter)
    first_token: float | None = None
    seconds: float = 0.0
    events: list[Event] = field(default_factory=list)

    def add(self, event: Event) -> None:
        if isinstance(event, Token) and self.first_token is None:
            self.first_token = time.perf_counter() - self.began
        self.seconds = time.perf_counter() - self.began
        self.events.append(event)

    @property
    def answer_id(self) -> str:
        return next((event.answer_id for event in self.events if isinstance(event, Accepted)), "")

    @property
    def conversation_id(self) -> str:
        return next((event.conversation_id for event in self.events if isinstance(event, Accepted)), "")


class Customer:
    """Asks each question as a new user, so that no per-user limit is reached."""

    def __init__(
        self,
        http: aiohttp.ClientSession,
        signer: LocalSigner,
        *,
        tenant: str,
        seed: HistorySeed | None = None,
        max_answer_tokens: int | None = None,
    ) -> None:
        self._http = http
        self._signer = signer
        self._tenant = tenant
        self._seed = seed
        self._max_answer_tokens = max_answer_tokens

    async def ask(self, sample: Sample) -> CustomerAnswer:
        """Ask a question in its conversation, which `seed` writes; without a seed, ask the earlier questions first."""
        owner = self._new_owner()
        headers = self._headers(owner)
        conversation = await self._conversation_before(sample, owner, headers)
        return await self._answer(sample.id, await self._stream(sample.text, conversation, headers), headers)

    async def converse(self, dialogue: Dialogue) -> list[CustomerAnswer]:
        """Send each turn of a dialogue in one conversation; the history consists of the product's own answers."""
        headers = self._headers(self._new_owner())
        conversation: str | None = None
        answers = []
        for n, turn in enumerate(dialogue.turns):
            stream = await self._stream(turn.text, conversation, headers)
            conversation = stream.conversation_id or conversation
            answers.append(await self._answer(dialogue.turn_id(n), stream, headers))
        return answers

    async def _answer(self, sample_id: str, stream: _ReceivedStream, headers: Mapping[str, str]) -> CustomerAnswer:
        cited = await self._cited_texts(stream, headers)
        return customer_answer(sample_id, stream.events, cited, stream.first_token, stream.seconds)

    def _new_owner(self) -> Principal:
        return Principal(tenant=self._tenant, sub=f"evals-{uuid4().hex[:12]}")

    async def _conversation_before(self, sample: Sample, owner: Principal, headers: Mapping[str, str]) -> str | None:
        if not sample.history:
            return None
        if self._seed is not None:
            return await self._seed(owner, sample)
        conversation: str | None = None
        for question in sample.earlier:
            stream = await self._stream(question, conversation, headers)
            conversation = stream.conversation_id or conversation
        return conversation

    async def _stream(self, question: str, conversation: str | None, headers: Mapping[str, str]) -> _ReceivedStream:
        """Send a question, and return the stream of the last attempt; retry while the product asks for it."""
        fields = {"message": question, "conversation_id": conversation, "max_answer_tokens": self._max_answer_tokens}
        body = {name: value for name, value in fields.items() if value is not None}
        for _ in range(MOST_ATTEMPTS):
            stream = await self._attempt(body, headers)
            pause = _pause_before_retry(stream.events)
            if pause is None:
                break
            await anyio.sleep(pause)
        return stream

    async def _attempt(self, body: Mapping[str, object], headers: Mapping[str, str]) -> _ReceivedStream:
        """Send a question once; a refusal becomes a stream with one `error` event."""
        stream = _ReceivedStream()
        async with self._http.post("/v1/chat", json=body, headers=headers) as response:
            if response.status != 200:
                stream.add(await refusal_event(response))
                return stream
            async with aclosing(read_events(response)) as events:
                async for event in events:
                    stream.add(event)
        return stream

    async def _cited_texts(self, stream: _ReceivedStream, headers: Mapping[str, str]) -> dict[int, str]:
        numbers = {event.n for event in stream.events if isinstance(event, Citation)}
        texts: dict[int, str] = {}
        for n in sorted(numbers):
            async with self._http.get(f"/v1/answers/{stream.answer_id}/sources/{n}", headers=headers) as response:
                if response.status == 200:
                    passage = msgspec.json.decode(await response.read(), type=SourceText)
                    texts[n] = "\n".join(filter(None, (passage.title, passage.section, passage.text)))
        return texts

    def _headers(self, owner: Principal) -> dict[str, str]:
        roles = frozenset({"customer", "evals"})
        principal = Principal(tenant=owner.tenant, sub=owner.sub, roles=roles, groups=frozenset())
        return {"authorization": f"Bearer {self._signer.token(principal)[0]}"}


class SourceText(msgspec.Struct):
    """A cited passage as returned by `/v1/answers/{id}/sources/{n}`."""

    text: str
    title: str
    section: str


class _Problem(msgspec.Struct):
    code: str = "unknown"
    title: str = ""


async def refusal_event(response: aiohttp.ClientResponse) -> Failed:
    """Return a problem document as the `error` event of the same failure."""
    problem = msgspec.json.decode(await response.read(), type=_Problem)
    return Failed(
        code=problem.code,
        status=response.status,
        title=problem.title,
        retryable=response.status in {429, 503},
        retry_after_ms=int(float(response.headers.get("Retry-After", "1")) * 1000),
        trace_id="",
        handoff="",
    )


def customer_answer(
    sample_id: str, events: list[Event], cited: Mapping[int, str], first_token: float | None, seconds: float
) -> CustomerAnswer:
    """Build an answer from the events of a stream; `first_token` and `seconds` in seconds."""
    last = events[-1] if events else None
    done = last if isinstance(last, Done) else None
    failure = f"error_{last.code}" if isinstance(last, Failed) else "cut"
    return CustomerAnswer(
        id=sample_id,
        text="".join(event.text for event in events if isinstance(event, Token)),
        finish_reason=done.finish_reason if done else failure,
        grounded=done.grounded if done else False,
        quoted=done.quoted if done else False,
        sources=tuple(source for event in events if isinstance(event, Sources) for source in event.items),
        citations=tuple(event for event in events if isinstance(event, Citation)),
        cited=dict(cited),
        notices=tuple(event.code for event in events if isinstance(event, Notice)),
        first_token_seconds=first_token,
        seconds=seconds,
        prompt_tokens=done.usage.prompt_tokens if done else 0,
        answer_tokens=done.usage.answer_tokens if done else 0,
        understood_as=next((event.understood_as for event in events if isinstance(event, Accepted)), ""),
        related=tuple(passage for event in events if isinstance(event, Related) for passage in event.items),
    )


def _pause_before_retry(events: Sequence[Event]) -> float | None:
    """Return the seconds before a retry requested by the product, or None after an answer or another failure."""
    last = events[-1] if events else None
    if not isinstance(last, Failed) or not last.retryable or any(isinstance(event, Token) for event in events):
        return None
    return (last.retry_after_ms or 1000) / 1000


def history_seed(redis: Redis) -> HistorySeed:
    """Return a seed that writes the history to the product's Redis, so that earlier answers need no model call."""
    history = History(redis, RedisBreaker(RedisBreakerSettings()), HistorySettings())

    async def seed(owner: Principal, sample: Sample) -> str:
        conversation, now = uuid4().hex, time.time()
        parent: str | None = None
        for turn in sample.history:
            message = StoredMessage(id=uuid4().hex, parent_id=parent, role=turn.role, text=turn.text, at=now)
            await history.append(owner, conversation, [message], now=now)
            parent = message.id
        return conversation

    return seed
