"""Builders: models over scripted servers, and what the reader of an answer gets."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field

import anyio
from aiohttp import web
from aiohttp.test_utils import TestServer

from chatbot.chat import Chat, Message
from chatbot.errors import ModelUnavailable
from chatbot.models.client import ModelDone, Models, NotResumable, Switched
from chatbot.models.endpoint import Endpoint, Group, Sampling
from chatbot.models.generation import Delta, PartialAnswer, Thought, read_output
from chatbot.models.pool import ModelCall, Pool
from knowledge.breaker import Breaker, BreakerSettings
from knowledge.model_connection import open_session
from knowledge.profiles import Deadlines
from llm_server.scripted import Behaviour, ScriptedModel, scripted_server
from tests.patience import patient

# Characters of one to eleven tokens, so that an answer may break off within one.
ANSWER = "정기예금을 중도해지하면 기본이율의 50%입니다. Ünïcode ‘quotes’ 谢谢 👩‍👩‍👧 끝. The fee is ₩1,000 — final."
QUICK = Deadlines(prefill=1e6, answer=30, between_tokens=0.4, base=0.4)  # where a deadline is to pass
PATIENT = Deadlines(prefill=1e6, answer=60, between_tokens=30, base=30)  # where none is, however busy the machine


@dataclass
class Served:
    """A pool over scripted servers, and what its hook saw."""

    models: Models
    servers: list[ScriptedModel]
    calls: list[ModelCall] = field(default_factory=list)

    @property
    def members(self) -> tuple[Endpoint, ...]:
        return self.models.pool.members

    def home(self, conversation_id: str) -> int:
        """Return the index of the server that a conversation goes to first."""
        member = self.models.pool.pick(conversation_id, self.models.pool.of_group("primary"))
        assert member is not None
        return self.members.index(member)

    def started(self) -> int:
        return sum(server.stats().started for server in self.servers)


@asynccontextmanager
async def serve(
    primaries: Sequence[Behaviour],
    fallbacks: Sequence[Behaviour] = (),
    *,
    canaries: Sequence[Behaviour] = (),
    share: float = 0.0,
    deadlines: Deadlines = PATIENT,
    open_seconds: float = 60.0,
) -> AsyncGenerator[Served]:
    groups: list[Group] = ["primary" for _ in primaries]
    groups += ["fallback" for _ in fallbacks]
    groups += ["canary" for _ in canaries]
    async with AsyncExitStack() as stack:
        servers = [
            await stack.enter_async_context(scripted_server(behaviour, name=group))
            for behaviour, group in zip([*primaries, *fallbacks, *canaries], groups, strict=True)
        ]
        http = await stack.enter_async_context(open_session())
        members = [
            Endpoint(http, server.url, deadlines, group=group, entry=group)
            for server, group in zip(servers, groups, strict=True)
        ]
        for member in members:
            member.breaker = Breaker(BreakerSettings(open_seconds=open_seconds))
        calls: list[ModelCall] = []
        models = Models(Pool(members, canary_share=share, on_call=calls.append))
        await models.pool.check_all()
        yield Served(models, servers, calls)


@dataclass
class Heard:
    """A whole answer, as its reader got it; `partial_answer` is the part of it that a successor would have."""

    text: str
    partial_answer: PartialAnswer
    output: bytes
    notices: list[Switched | NotResumable]
    done: ModelDone
    thinking_tokens: int

    @property
    def switches(self) -> list[Switched]:
        return [notice for notice in self.notices if isinstance(notice, Switched)]


CHAT = Chat(messages=(Message("system", "You answer."), Message("user", "중도해지 이율은?")), tokens=37)
"""`tokens` are those of the scripted model."""


async def ask(
    served: Served,
    *,
    max_tokens: int = 400,
    conversation_id: str = "c-1",
    sampling: Sampling | None = None,
    chat: Chat = CHAT,
    partial_answer: PartialAnswer | None = None,
) -> Heard:
    generated: list[Delta | Thought] = []
    notices: list[Switched | NotResumable] = []
    done: list[ModelDone] = []
    stream = served.models.stream(
        chat,
        sampling=sampling or Sampling(max_tokens=max_tokens),
        conversation_id=conversation_id,
        cache_salt="hanbit",
        partial_answer=partial_answer,
    )
    async with aclosing(stream) as parts:
        async for part in parts:
            assert not done, "nothing follows the end"
            match part:
                case ModelDone():
                    done.append(part)
                case Switched() | NotResumable():
                    notices.append(part)
                case _:
                    generated.append(part)
    deltas = [part for part in generated if isinstance(part, Delta)]
    output = b"".join(part.output for part in deltas)
    thinking = sum(part.tokens for part in generated if isinstance(part, Thought))
    text = "".join(part.text for part in deltas)
    return Heard(text, read_output(output), output, notices, done[0], thinking)


async def until_idle(served: Served, *, within: float) -> None:
    """Return when no server runs or waits for anything; fail when that takes too long."""
    with anyio.fail_after(patient(within)):
        for server in served.servers:
            await server.until(lambda stats: stats.running + stats.waiting == 0)


async def ready(models: Models, *, within: float) -> None:
    with anyio.fail_after(patient(within)):
        while True:
            try:
                await probed(models)
            except ModelUnavailable as exc:
                await anyio.sleep(exc.retry_after or 0.01)
            else:
                return


async def probed(models: Models) -> None:
    """Probe every endpoint whose probe is due, as the background does, and ask whether one is ready."""
    for member in models.pool.members:
        await models.pool.probe(member)
    await models.pool.ping()


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def handled(handler: Handler) -> AsyncGenerator[str]:
    """Serve every route by one handler; yield the URL."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    async with TestServer(app) as server:
        yield str(server.make_url("/"))
