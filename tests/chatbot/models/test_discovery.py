"""A name's addresses are endpoints: those that come are called, those that go are not, and answers go on."""

import json
import ssl
from collections.abc import AsyncGenerator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import anyio
import pytest
from structlog.testing import capture_logs

from chatbot.errors import ModelUnavailable
from chatbot.models.client import Models, open_models
from chatbot.models.pool import addresses_of
from chatbot.models.settings import ModelSettings, ModelsMisconfigured
from knowledge.breaker import BreakerState
from knowledge.profiles import read_deadlines
from llm_server.scripted import Behaviour, ScriptedModel, scripted_server
from tests.certificates import certificates
from tests.chatbot.models.scripted_pool import ANSWER, Served, ask
from tests.conftest import free_port
from tests.patience import patient

pytestmark = pytest.mark.anyio

HOST = "models.bank.internal"
HERE, THERE, ELSEWHERE = "127.0.0.2", "127.0.0.3", "127.0.0.4"


class Names:
    """A resolver whose answers a test sets."""

    def __init__(self, *addresses: str) -> None:
        self.addresses: frozenset[str] | OSError = frozenset(addresses)

    async def __call__(self, host: str) -> frozenset[str]:
        assert host == HOST
        if isinstance(self.addresses, OSError):
            raise self.addresses
        return self.addresses

    def are(self, *addresses: str) -> None:
        self.addresses = frozenset(addresses)


@asynccontextmanager
async def pods(
    addresses: Iterable[str], behaviour: Behaviour, port: int, *, name: str = "scripted"
) -> AsyncGenerator[list[ScriptedModel]]:
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(scripted_server(behaviour, host=address, port=port, name=name))
            for address in addresses
        ]


@asynccontextmanager
async def following(
    folder: Path, names: Names, port: int, *, scheme: str = "http", **fields: object
) -> AsyncGenerator[Models]:
    entry = {
        "name": "main",
        "urls": [f"{scheme}://{HOST}:{port}"],
        "follow_dns": True,
        "profile": "scripted",
        **fields,
    }
    (folder / "models.yaml").write_text(json.dumps([entry]), "utf-8")
    settings = ModelSettings(models_file=folder / "models.yaml")
    async with open_models(settings, resolve=names, resolve_every=0.02) as models:
        yield models


async def until_members(models: Models, *addresses: str) -> None:
    with anyio.fail_after(patient(5)):
        while sorted(str(m.name).partition(":")[0] for m in models.pool.members) != sorted(addresses):
            await anyio.sleep(0.01)


async def test_every_address_of_a_name_is_an_endpoint_also_a_new_one(tmp_path: Path) -> None:
    names, port = Names(HERE, THERE), free_port()
    async with pods([HERE, THERE, ELSEWHERE], Behaviour(answer="예."), port) as servers:
        async with following(tmp_path, names, port) as models:
            await until_members(models, HERE, THERE)
            names.are(HERE, THERE, ELSEWHERE)
            await until_members(models, HERE, THERE, ELSEWHERE)
            assert all(member.checked for member in models.pool.members)
            for n in range(30):
                assert (await ask(Served(models, servers), conversation_id=f"c-{n}")).text == "예."
        assert all(server.stats().started for server in servers)


async def test_a_removed_address_gets_no_call_and_its_answer_continues(tmp_path: Path) -> None:
    names, port = Names(HERE), free_port()
    async with pods([HERE, THERE], Behaviour(answer=ANSWER, stall_after=3), port) as (here, there):
        async with following(tmp_path, names, port) as models:
            served = Served(models, [here, there])
            answers = []

            async def answer() -> None:
                answers.append(await ask(served))

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(answer)
                await here.until(lambda stats: bool(stats.running))
                names.are(THERE)
                await until_members(models, THERE)
                there.tell(stall_after=None)
                assert (await ask(served)).text == ANSWER
                here.tell(stall_after=None)
            assert (answers[0].text, answers[0].switches) == (ANSWER, [])
        assert (here.stats().started, there.stats().started) == (1, 1)


async def test_a_failed_lookup_changes_nothing_and_an_empty_one_leaves_no_endpoint(
    tmp_path: Path,
) -> None:
    names, port = Names(HERE), free_port()
    async with (
        pods([HERE], Behaviour(answer="예."), port) as servers,
        following(tmp_path, names, port, model="scripted") as models,
    ):
        with capture_logs() as logs:
            names.addresses = OSError("no server answers")
            with anyio.fail_after(patient(5)):
                while not logs:
                    await anyio.sleep(0.01)
        assert {entry["event"] for entry in logs} == {"model_host_resolution_failed"}
        assert (await ask(Served(models, servers))).text == "예."
        names.are()
        await until_members(models)
        with pytest.raises(ModelUnavailable):
            await ask(Served(models, servers))
        assert models.model == "scripted"
        assert models.names == {"main"}


async def test_a_pool_that_is_empty_at_boot_fills_and_respects_a_stop(tmp_path: Path) -> None:
    names, port = Names(), free_port()
    async with (
        pods([HERE], Behaviour(answer="예."), port) as servers,
        following(tmp_path, names, port, model="scripted") as models,
    ):
        assert models.pool.prefill_rate == read_deadlines("scripted").prefill
        models.pool.stop(["main"])
        names.are(HERE)
        await until_members(models, HERE)
        with pytest.raises(ModelUnavailable):
            await ask(Served(models, servers))
        models.pool.stop([])
        assert (await ask(Served(models, servers))).text == "예."


async def test_a_start_in_a_rollout_uses_the_endpoints_that_serve_our_model(tmp_path: Path) -> None:
    names, port = Names(HERE, THERE), free_port()
    async with (
        pods([HERE], Behaviour(answer="아니요."), port, name="before") as [before],
        pods([THERE], Behaviour(answer="예."), port) as [after],
    ):
        async with following(tmp_path, names, port, model="scripted") as models:
            assert [m.breaker.state for m in models.pool.members] == [BreakerState.OPEN, BreakerState.CLOSED]
            assert models.model == "scripted"
            for n in range(10):
                assert (await ask(Served(models, [before, after]), conversation_id=f"c-{n}")).text == "예."
        names.are(HERE)
        with pytest.raises(ModelsMisconfigured, match=r"serves \['before'\], not scripted"):
            async with following(tmp_path, names, port, model="scripted"):
                pass


async def test_tls_verifies_the_name_although_an_address_is_called(tmp_path: Path) -> None:
    certificates(tmp_path, host=HOST)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")
    names, ca = Names(HERE), str(tmp_path / "ca.pem")
    async with scripted_server(Behaviour(answer="예."), host=HERE, tls=tls) as server:
        port = int(server.url.rpartition(":")[2])
        async with following(tmp_path, names, port, scheme="https", ca_file=ca) as models:
            assert (await ask(Served(models, [server]))).text == "예."
        certificates(tmp_path, host="other.bank.internal")
        tls.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")
        with pytest.raises(ModelsMisconfigured, match="no TLS connection"):
            async with following(tmp_path, names, port, scheme="https", ca_file=ca):
                pass


async def test_the_system_s_resolver_gives_one_family_of_addresses() -> None:
    assert await addresses_of("127.0.0.2") == {"127.0.0.2"}
    assert await addresses_of("::1") == {"::1"}
    assert await addresses_of("localhost") == {"127.0.0.1"}
