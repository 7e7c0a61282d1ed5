"""A hung engine is stopped although `/health` is green; a busy, idle, slow or draining one is not."""

import signal
import time
from pathlib import Path

import aiohttp
import anyio
import httpx2
import pytest

from llm_server.scripted import Behaviour, ScriptedModel, scripted_server
from llm_server.watchdog import wait_for_hang
from tests.conftest import free_port
from tests.llm_server.test_launch import all_gone, descendants, serving, stand_in
from tests.patience import patient

pytestmark = pytest.mark.anyio

PATIENCE = 0.6
LONG = "가" * 400


async def generate(server: ScriptedModel) -> None:
    async with aiohttp.ClientSession(server.url) as http:
        body = {"model": "scripted", "prompt": "x", "max_tokens": 1000, "stream": True}
        async with http.post("/v1/completions", json=body) as reply:
            await reply.read()


async def hangs(server: ScriptedModel, *, within: float) -> bool:
    """Return whether the watchdog detects a hang in time."""
    async with aiohttp.ClientSession(server.url) as http:
        with anyio.move_on_after(within) as waiting:
            await wait_for_hang(http, "scripted", every=0.1, patience=PATIENCE)
    return not waiting.cancelled_caught


async def test_an_engine_stalled_during_requests_hangs_although_healthy() -> None:
    async with (
        scripted_server(Behaviour(answer=LONG, stall_after=5, slots=1)) as server,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(generate, server)
        await server.until(lambda stats: bool(stats.running))
        assert await hangs(server, within=patient(10))
        async with aiohttp.ClientSession(server.url) as http, http.get("/health") as reply:
            assert reply.status == 200
        tasks.cancel_scope.cancel()


async def test_an_engine_stalled_while_idle_hangs() -> None:
    async with scripted_server(Behaviour(stall_after=0)) as server:
        assert await hangs(server, within=patient(10))
        assert server.stats().started == 1, "what was asked to find out"


async def test_slow_tokens_are_not_a_hang() -> None:
    behaviour = Behaviour(answer=LONG, token_seconds=PATIENCE / 4, slots=1)
    async with scripted_server(behaviour) as server, anyio.create_task_group() as tasks:
        tasks.start_soon(generate, server)
        await server.until(lambda stats: bool(stats.running))
        assert not await hangs(server, within=5 * PATIENCE)
        tasks.cancel_scope.cancel()


async def test_idle_and_full_engines_do_not_hang() -> None:
    async with scripted_server(Behaviour(answer="예.")) as server:
        assert not await hangs(server, within=3 * PATIENCE)
        assert {request.answer_tokens for request in server.stats().requests} == {1}
        server.tell(fail_status=503)
        assert not await hangs(server, within=3 * PATIENCE)


def test_the_launcher_ends_a_hung_engine_with_a_sentence(tmp_path: Path) -> None:
    port = free_port()
    with serving(stand_in(tmp_path), port, tmp_path, "--hung-after", "1") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"ready http://127.0.0.1:{port}\n"
        children = descendants(process.pid)
        httpx2.post(f"http://127.0.0.1:{port}/script", json={"stall_after": 0})
        assert process.wait(patient(30)) == 1
        assert process.stderr is not None
        assert "vLLM answers and generates nothing: no token in 1 s." in process.stderr.read()
        assert all_gone(children)


def test_a_draining_launcher_waits_for_its_answers(tmp_path: Path) -> None:
    port = free_port()
    path = stand_in(tmp_path)
    # A front end that is slow to exit after SIGTERM, like vLLM while it finishes its streams.
    text = (
        path.read_text("utf-8").replace("exec ", "trap 'sleep 4; exit 0' TERM; ").rstrip()
        + " & while :; do wait; done\n"
    )
    path.write_text(text, encoding="utf-8")
    with serving(path, port, tmp_path, "--hung-after", "1") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        httpx2.post(f"http://127.0.0.1:{port}/script", json={"stall_after": 0})
        began = time.monotonic()
        assert process.wait(patient(30)) == 0
        assert time.monotonic() - began > 3, "it was not ended as hung"
