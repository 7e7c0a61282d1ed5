"""Slots follow the load that endpoints report, over scripted servers."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

import anyio
import pytest
from aiohttp import ClientSession

from chatbot.admission.capacity import Capacity
from chatbot.admission.fair_queue import Admission, AdmissionSettings
from chatbot.models import Endpoint
from knowledge.identity import Principal
from knowledge.model_connection import open_session
from knowledge.profiles import read_deadlines
from llm_server.scripted import Behaviour, ScriptedModel, scripted_server
from tests.constants import with_constants

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def generations(server: ScriptedModel, *, running: int, waiting: int) -> AsyncGenerator[None]:
    """Run generations on the server that never produce a token."""

    async def generate(http: ClientSession) -> None:
        async with http.post(f"{server.url}/v1/completions", json={"prompt": "x", "stream": True}) as reply:
            await reply.read()

    async with open_session() as http, anyio.create_task_group() as tasks:
        for _ in range(running + waiting):
            tasks.start_soon(generate, http)
        await server.until(lambda stats: (stats.running, stats.waiting) == (running, waiting))
        yield
        tasks.cancel_scope.cancel()


async def test_a_busy_endpoint_takes_slots_back() -> None:
    async with (
        scripted_server(Behaviour(slots=1, stall_after=0)) as busy,
        scripted_server() as away,
        open_session() as http,
        generations(busy, running=1, waiting=2),
        AsyncExitStack() as taken,
    ):
        configured, deadlines = with_constants(AdmissionSettings(slots=16), poll_every=0.5), read_deadlines("scripted")
        endpoints = [Endpoint(http, server.url, deadlines) for server in (busy, away)]
        admission = Admission(configured)
        capacity = Capacity(lambda: endpoints, admission, configured)
        for _ in range(3):
            place = admission.enter(Principal(tenant="hanbit", sub="lee"))
            slot = admission.slot(place, prompt_tokens=1, answer_tokens=1, on_wait=lambda _p, _s: None)
            await taken.enter_async_context(slot)
        await capacity.poll()
        assert admission.slots == 1, "two of our three wait there"
        away.tell(hung=True)
        await capacity.poll()
        assert admission.slots == 1
        busy.tell(hung=True)
        await capacity.poll()
        assert admission.slots == 16, "nobody tells: the settings' number"
        endpoints[0].breaker.trip()
        away.tell(hung=False)
        admission.slots = 3
        for _ in range(5):
            await capacity.poll()
        assert admission.slots == 4, "an endpoint that is not called does not count"
        busy.reset()
