"""Slots follow what the endpoints say of themselves, within the settings' bound, and fall back on it."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from aiohttp import ClientSession

from chatbot.admission.capacity import Capacity, EndpointLoad, LoadNotReported, read_load, slots_after
from chatbot.admission.fair_queue import Admission, AdmissionSettings, Place
from chatbot.models import Endpoint
from knowledge.identity import Principal
from knowledge.model_connection import open_session
from knowledge.profiles import read_deadlines
from llm_server.profile import load_profile, profile_names
from llm_server.scripted import Behaviour, ScriptedModel, scripted_server
from tests.constants import with_constants

pytestmark = pytest.mark.anyio

LEE = Principal(tenant="hanbit", sub="lee", roles=frozenset({"customer"}), groups=frozenset())
VLLM = """# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 2.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="m"} 1.0
vllm:num_requests_waiting{engine="1",model_name="m"} 0.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="m",reason="capacity"} 1.0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="m"} 0.5
vllm:prompt_tokens_total{engine="0",model_name="m"} 12345.0
"""


def idle(**more: float) -> EndpointLoad:
    return EndpointLoad(running=0, waiting=0, **more)


def test_the_metrics_of_the_pinned_vllm_are_read_over_all_its_engines() -> None:
    assert read_load(VLLM) == EndpointLoad(running=5, waiting=1, cache=0.5)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "up 1\n",
        VLLM.replace("waiting{", "queued{"),
        *(VLLM.replace("} 3.0", f"}} {value}") for value in ("three", "NaN", "+Inf", "-1", "1e300")),
        VLLM.replace("} 0.25", "} NaN"),
    ],
)
def test_other_metrics_tell_nothing(text: str) -> None:
    with pytest.raises(LoadNotReported):
        read_load(text)


def test_the_names_that_we_read_stand_in_the_pinned_vllm() -> None:
    sources = sorted(Path(".venv-llm").glob("lib/python3*/site-packages/vllm/v1/metrics/loggers.py"))
    if not sources:
        pytest.skip("no vLLM here (.venv-llm)")
    source = sources[0].read_text("utf-8")
    for name in ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc"):
        assert f'name="{name}"' in source


def test_every_profile_lets_requests_have_a_priority() -> None:
    assert {load_profile(name).engine.scheduling_policy for name in profile_names()} == {"priority"}


def test_what_waits_in_the_endpoints_is_taken_back_by_each_replica_in_its_part() -> None:
    full = [EndpointLoad(running=16, waiting=4)]
    assert slots_after(16, full, busy=20, calm=0, most=32) == 12, "alone: all four"
    assert slots_after(16, full, busy=10, calm=0, most=32) == 8, "one of two replicas: two of them"
    assert slots_after(16, full, busy=0, calm=0, most=32) == 1, "never none"


def test_slots_grow_once_nothing_has_waited_for_a_while_up_to_the_settings() -> None:
    assert slots_after(4, [idle()], busy=4, calm=4, most=16) == 4
    assert slots_after(4, [idle()], busy=4, calm=5, most=16) == 5
    assert slots_after(16, [idle()], busy=16, calm=9, most=64) == 18
    assert slots_after(64, [idle()], busy=1, calm=9, most=64) == 64


def test_a_full_cache_of_contexts_lets_nobody_else_in() -> None:
    assert slots_after(16, [idle(cache=0.3), idle(cache=0.97)], busy=9, calm=9, most=16) == 9


def test_the_settings_stand_in_where_nothing_is_told() -> None:
    assert slots_after(3, [], busy=3, calm=1, most=16) == 16


def test_the_slots_of_all_replicas_settle_at_what_the_endpoints_run() -> None:
    runs, replicas, calm = 12, [16, 16, 16], 0
    for _ in range(60):
        started = sum(replicas)
        load = [EndpointLoad(running=min(started, runs), waiting=max(0, started - runs))]
        calm = 0 if load[0].waiting else calm + 1
        replicas = [slots_after(slots, load, busy=slots, calm=calm, most=16) for slots in replicas]
    assert runs - len(replicas) <= sum(replicas) <= runs + len(replicas), "each tries one more now and then"


@asynccontextmanager
async def watched(
    *servers: ScriptedModel, most: int = 16
) -> AsyncGenerator[tuple[Capacity, Admission, list[Endpoint]]]:
    configured = with_constants(AdmissionSettings(slots=most), poll_every=0.5)
    async with open_session() as http:
        members = [Endpoint(http, server.url, read_deadlines("scripted")) for server in servers]
        admission = Admission(configured)
        yield Capacity(lambda: members, admission, configured), admission, members


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


@asynccontextmanager
async def slots_taken(admission: Admission, count: int) -> AsyncGenerator[None]:
    async def hold(place: Place) -> None:
        async with admission.slot(place, prompt_tokens=1, answer_tokens=1, on_wait=lambda _p, _s: None):
            await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks:
        for _ in range(count):
            tasks.start_soon(hold, admission.enter(LEE))
        while admission.busy < count:
            await anyio.lowlevel.checkpoint()
        yield
        tasks.cancel_scope.cancel()


async def test_a_busy_endpoint_takes_slots_back_and_one_that_cannot_be_asked_does_not_count() -> None:
    async with (
        scripted_server(Behaviour(slots=1, stall_after=0)) as busy,
        scripted_server() as away,
        watched(busy, away) as (capacity, admission, members),
        generations(busy, running=1, waiting=2),
        slots_taken(admission, 3),
    ):
        await capacity.poll()
        assert admission.slots == 1, "two of our three wait there"
        away.tell(hung=True)
        await capacity.poll()
        assert admission.slots == 1
        busy.tell(hung=True)
        await capacity.poll()
        assert admission.slots == 16, "nobody tells: the settings' number"
        members[0].breaker.trip()
        away.tell(hung=False)
        admission.slots = 3
        for _ in range(5):
            await capacity.poll()
        assert admission.slots == 4, "an endpoint that is not called does not count"
        busy.reset()
