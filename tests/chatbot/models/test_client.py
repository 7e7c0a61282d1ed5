"""Answers go on when endpoints die, stall, refuse or are away; nothing is lost, doubled or left running."""

from contextlib import AsyncExitStack, aclosing
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import anyio
import pytest

from chatbot.chat import Chat
from chatbot.errors import ModelUnavailable, Overloaded, TooLarge
from chatbot.events import Usage
from chatbot.models.choice_probabilities import YES_OR_NO
from chatbot.models.client import ModelDone, Models, Switched, open_models
from chatbot.models.endpoint import Endpoint, Sampling
from chatbot.models.generation import Delta
from chatbot.models.pool import ModelCall, Pool
from chatbot.models.settings import ModelSettings, ModelsMisconfigured
from knowledge.breaker import Breaker, BreakerSettings, BreakerState
from knowledge.model_connection import open_session
from llm_server.scripted import Behaviour, decode, encode, scripted_server
from tests.chatbot.models.scripted_pool import (
    ANSWER,
    CHAT,
    PATIENT,
    QUICK,
    Served,
    ask,
    probed,
    ready,
    serve,
    until_idle,
)
from tests.conftest import free_port
from tests.patience import patient

pytestmark = pytest.mark.anyio


async def refused(served: Served) -> None:
    with pytest.raises(ModelUnavailable):
        await ask(served)


async def test_an_answer_arrives_whole_with_its_usage() -> None:
    async with serve([Behaviour(answer=ANSWER)]) as served:
        first = await ask(served)
        again = await ask(served)
        seen = served.servers[0].stats().requests
    assert first.text == ANSWER
    assert decode(first.partial_answer.ids) == ANSWER
    # The end token is generated, and so paid, but has no text.
    assert first.done == ModelDone(
        "stop",
        Usage(prompt_tokens=CHAT.tokens, cached_tokens=0, answer_tokens=len(first.partial_answer.ids) + 1),
    )
    assert again.done.usage.cached_tokens > 0
    assert {request.cache_salt for request in seen} == {"hanbit"}
    assert [(call.kind, call.outcome) for call in served.calls] == [("answer", "ok")] * 2
    assert served.members[0].in_flight == 0


@pytest.mark.parametrize("k", range(1, 99))
async def test_an_endpoint_killed_after_k_tokens_loses_and_doubles_nothing(k: int) -> None:
    async with serve([Behaviour(answer=ANSWER)] * 2) as served:
        whole = len(encode(ANSWER)) + 1
        home = served.home("c-1")
        served.servers[home].tell(die_after=k)
        heard = await ask(served)
    assert heard.text == ANSWER
    # The last token is the end, of which nothing is shown.
    switched = [Switched(served.members[1 - home].name, "primary")] if k < whole - 1 else []
    assert heard.switches == switched
    assert decode(heard.partial_answer.ids) == ANSWER
    assert heard.done.finish_reason == "stop"
    assert heard.done.usage == Usage(prompt_tokens=CHAT.tokens, cached_tokens=0, answer_tokens=whole)
    assert k < whole, "otherwise nobody dies"
    assert [call.outcome for call in served.calls] == ["broken", "ok"]


async def test_the_only_endpoint_goes_on_after_a_cut_connection() -> None:
    async with serve([Behaviour(answer=ANSWER, drop_after=20, times=1)]) as served:
        heard = await ask(served)
    assert heard.text == ANSWER
    assert len(heard.switches) == 1


async def test_a_stall_in_mid_answer_moves_it_after_the_profiles_pause() -> None:
    async with serve([Behaviour(answer=ANSWER)] * 2, deadlines=QUICK) as served:
        served.servers[served.home("c-1")].tell(stall_after=12)
        begun = perf_counter()
        heard = await ask(served)
        assert 0.4 <= perf_counter() - begun < patient(2)
        assert heard.text == ANSWER
        assert [call.outcome for call in served.calls] == ["slow", "ok"]
        await until_idle(served, within=0.5)


async def test_the_token_allowance_spans_endpoints() -> None:
    async with serve([Behaviour(answer=ANSWER)] * 2) as served:
        uninterrupted = await ask(served, max_tokens=30)
        served.servers[served.home("c-1")].tell(die_after=17)
        heard = await ask(served, max_tokens=30)
    assert heard.done.finish_reason == "length"
    assert heard.done.usage.answer_tokens == uninterrupted.done.usage.answer_tokens == 30
    assert heard.text == uninterrupted.text


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        ({"fail_status": 500}, "broken"),
        ({"dead": True}, "broken"),
        ({"drop_after": 0}, "broken"),
        ({"first_token_seconds": 30}, "slow"),
    ],
)
async def test_a_failure_before_the_first_token_is_retried_once_silently(
    fault: dict[str, object], outcome: str
) -> None:
    async with serve([Behaviour(answer=ANSWER)] * 2, deadlines=QUICK) as served:
        served.servers[served.home("c-1")].tell(**fault)
        heard = await ask(served)
        assert (heard.text, heard.switches) == (ANSWER, [])
        assert [call.outcome for call in served.calls] == [outcome, "ok"]
        await until_idle(served, within=0.5)


async def test_a_model_that_comes_back_is_found_by_one_probe() -> None:
    async with serve([Behaviour(answer=ANSWER, dead=True)], open_seconds=0.2) as served:
        with pytest.raises(ModelUnavailable):
            await probed(served.models)
        served.servers[0].tell(dead=False)
        await ready(served.models, within=5)
        assert (await ask(served)).text == ANSWER
        assert served.models.model == "primary"
        probes = [call for call in served.calls if call.kind == "ping" and call.outcome == "ok"]
        assert len(probes) == 1


async def test_a_pool_that_names_more_than_there_are_degrades_no_answer() -> None:
    # At the product's own settings: three servers are up, thirteen names lead nowhere.
    calls: list[ModelCall] = []
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(scripted_server(Behaviour(answer="예."))) for _ in range(3)]
        http = await stack.enter_async_context(open_session())
        urls = [*(server.url for server in servers), *(f"http://127.0.0.1:{free_port()}" for _ in range(13))]
        models = Models(Pool([Endpoint(http, url, PATIENT) for url in urls], on_call=calls.append))
        await models.pool.check_all()
        served, began = Served(models, servers), anyio.current_time()
        async with anyio.create_task_group() as group:
            group.start_soon(models.pool.probe_forever)
            for n in range(600):
                heard = await ask(served, conversation_id=f"c-{n}")
                assert not heard.done.retried
                assert not heard.switches
                await anyio.sleep(0.01)  # customers come one after the other, for longer than a breaker is open
            took = anyio.current_time() - began
            group.cancel_scope.cancel()
    failed = [call for call in calls if call.outcome != "ok"]
    assert took > BreakerSettings().open_seconds, "no probe was due"
    assert failed
    assert {call.kind for call in failed} == {"ping"}
    assert len(failed) <= took


async def test_a_model_that_is_up_but_hangs_is_not_ready() -> None:
    async with serve([Behaviour(dead=True)], open_seconds=0.01, deadlines=QUICK) as served:
        served.servers[0].tell(dead=False, stall_after=0)
        await anyio.sleep(0.02)  # the breaker's own time
        begun = perf_counter()
        with pytest.raises(ModelUnavailable):
            await probed(served.models)
        assert perf_counter() - begun < patient(3)
        assert [(call.kind, call.outcome) for call in served.calls] == [("ping", "slow")]


async def test_a_rate_limited_probe_is_repeated_after_growing_waits() -> None:
    now = 0.0
    async with serve([Behaviour(fail_status=429)]) as served:
        (member,) = served.members
        member.breaker = Breaker(BreakerSettings(open_seconds=5, longest_open_seconds=60), clock=lambda: now)
        member.breaker.trip()
        for wait in (5, 10, 20, 40, 60):
            assert member.breaker.retry_after == wait
            now += wait
            with pytest.raises(ModelUnavailable):
                await probed(served.models)
        served.servers[0].tell(fail_status=None)
        now += 60
        await probed(served.models)
        assert member.available


async def test_a_full_queue_opens_no_breaker_and_retries_stay_under_a_tenth() -> None:
    async with serve([Behaviour(answer="a", fail_status=429)] * 2) as served:
        for _ in range(300):
            with pytest.raises(Overloaded):
                await ask(served)
        assert served.started() <= 300 * 1.1 + 10
        assert {member.breaker.state for member in served.members} == {BreakerState.CLOSED}


@pytest.mark.parametrize(
    ("fault", "text", "outcomes"),
    [
        ({"fail_status": 400}, "small", ["refused", "ok"]),
        ({"dead": True}, "small", ["broken", "ok"]),
        ({"first_token_seconds": 30}, "", ["slow"]),
    ],
    ids=["refused", "broken", "slow: the smaller model is not flooded"],
)
async def test_without_a_retry_left_no_other_primary_is_asked(
    fault: dict[str, object], text: str, outcomes: list[str]
) -> None:
    async with serve([Behaviour(answer=ANSWER)] * 2, [Behaviour(answer="small")], deadlines=QUICK) as served:
        for server in served.servers[:2]:
            server.tell(**fault)
        while served.models.pool.take_retry():
            pass
        if text:
            heard = await ask(served)
            assert (heard.text, heard.switches) == (text, [Switched(served.members[2].name, "fallback")])
        else:
            await refused(served)
        assert [call.outcome for call in served.calls] == outcomes
        assert {member.breaker.state for member in served.members} == {BreakerState.CLOSED}


async def test_an_answer_goes_on_where_the_only_other_endpoint_has_failed_before() -> None:
    async with serve([Behaviour(answer=ANSWER)] * 2) as served:
        home = served.home("c-1")
        served.servers[home].tell(die_after=20)
        other = served.members[1 - home]
        other.breaker.trip()
        heard = await ask(served)
        assert heard.text == ANSWER
        assert [switch.endpoint for switch in heard.switches] == [other.name]
        assert other.breaker.state is BreakerState.OPEN, "what is asked beside the rules decides nothing"


async def test_an_answer_never_changes_to_another_model_in_its_middle() -> None:
    async with serve([Behaviour(answer=ANSWER, die_after=20)], [Behaviour(answer="small")]) as served:
        await refused(served)
        assert served.servers[1].stats().started == 0


async def test_a_canary_gets_its_share_of_the_conversations_and_always_the_same() -> None:
    async with serve([Behaviour()], canaries=[Behaviour()], share=0.2) as served:
        groups = {f"c-{n}": served.models.pool.group_order(f"c-{n}") for n in range(1000)}
        assert groups == {name: served.models.pool.group_order(name) for name in groups}
    firsts = [order[0] for order in groups.values()]
    assert 150 <= firsts.count("canary") <= 250
    assert set(groups.values()) == {("canary", "primary", "fallback"), ("primary", "fallback")}


async def test_a_canarys_conversation_is_answered_by_a_primary_when_the_canary_cannot() -> None:
    async with serve([Behaviour(answer=ANSWER)], canaries=[Behaviour(answer="canary")], share=0.999_999) as served:
        heard = await ask(served)
        assert (heard.text, heard.done.models, heard.done.retried) == ("canary", ("canary",), False)
        served.servers[1].tell(fail_status=500)
        heard = await ask(served)
        assert (heard.text, heard.done.models, heard.done.retried) == (ANSWER, ("primary",), True)
        assert heard.switches == []


async def test_a_stopped_model_is_not_called_until_it_is_resumed() -> None:
    async with serve([Behaviour(answer=ANSWER)] * 2, [Behaviour(answer="small")]) as served:
        served.models.pool.stop({"primary"})
        heard = await ask(served)
        assert (heard.text, [switch.group for switch in heard.switches]) == ("small", ["fallback"])
        assert [member.stopped for member in served.members] == [True, True, False]
        served.models.pool.stop({"primary", "fallback"})
        await refused(served)
        with pytest.raises(ModelUnavailable):
            await probed(served.models)
        served.models.pool.stop(())
        assert (await ask(served)).text == ANSWER


@pytest.mark.parametrize("moment", [{"first_token_seconds": 20}, {"stall_after": 5}, {"token_seconds": 0.05}])
async def test_a_stop_ends_a_running_answer_at_once_and_opens_no_breaker(moment: dict[str, float]) -> None:
    async with serve([Behaviour(answer=ANSWER)] * 2) as served:
        for server in served.servers:
            server.tell(**moment)
        async with anyio.create_task_group() as group:
            group.start_soon(refused, served)
            await served.servers[served.home("c-1")].until(lambda stats: stats.running == 1)
            served.models.pool.stop({"primary"})
            await until_idle(served, within=0.5)
        assert [call.outcome for call in served.calls] == ["stopped"]
        assert {member.breaker.state for member in served.members} == {BreakerState.CLOSED}


@pytest.mark.parametrize("moment", ["mid-stream", "before the first token", "at the switch"])
async def test_a_client_that_leaves_frees_the_slot_at_once(moment: str) -> None:
    slow = Behaviour(answer=ANSWER, token_seconds=0.02, first_token_seconds=0.0 if moment == "mid-stream" else 3)
    groups = ([Behaviour(dead=True)], [slow]) if moment == "at the switch" else ([slow], [])
    async with serve(*groups) as served:
        stream = served.models.stream(CHAT, sampling=Sampling(max_tokens=400), conversation_id="c", cache_salt="t")
        async with anyio.create_task_group() as group:

            async def read() -> None:
                async with aclosing(stream) as parts:
                    async for part in parts:
                        if moment == "at the switch" or isinstance(part, Delta):
                            return

            group.start_soon(read)
            if moment == "before the first token":
                await served.servers[0].until(lambda stats: stats.running == 1)
                group.cancel_scope.cancel()
        await until_idle(served, within=0.5)
        assert [member.in_flight for member in served.members] == [0] * len(served.members)
        assert served.calls[-1].outcome == "left"
        assert served.members[-1].breaker.state is BreakerState.CLOSED


async def probability(served: Served, chat: Chat = CHAT) -> float:
    yes, _ = await served.models.choice_probabilities(chat, YES_OR_NO, conversation_id="c-1", cache_salt="hanbit")
    return yes


async def test_a_prompt_that_cannot_fit_is_refused_before_any_call() -> None:
    async with serve([Behaviour(answer=ANSWER, max_model_len=60)]) as served:
        room = 60 - CHAT.tokens
        assert (await ask(served)).done.usage.answer_tokens <= room
        with pytest.raises(TooLarge):
            await probability(served, replace(CHAT, tokens=60))
        assert served.started() == 1


async def test_an_endpoint_with_too_small_a_context_is_not_called() -> None:
    tiny, small = (Behaviour(answer="a", max_model_len=CHAT.tokens + n) for n in (0, 5))
    async with serve([Behaviour(answer=ANSWER), tiny], [small]) as served:
        for n in range(10):
            assert (await ask(served, conversation_id=f"c-{n}")).text == ANSWER
        served.servers[0].tell(dead=True)
        assert (await ask(served)).text == "a"
        assert served.servers[1].stats().started == 0


async def test_conversations_keep_their_home_and_spread() -> None:
    async with serve([Behaviour(answer="a")] * 4) as served:
        homes = [served.home(f"conversation-{n}") for n in range(400)]
        assert homes == [served.home(f"conversation-{n}") for n in range(400)]
        assert all(55 <= homes.count(n) <= 145 for n in range(4))  # ports are drawn: five deviations
        for _ in range(5):  # one leaves: only its conversations move
            served.members[0].breaker.trip()
        moved = [(before, served.home(f"conversation-{n}")) for n, before in enumerate(homes)]
        assert all(before == after for before, after in moved if before != 0)


async def test_a_busy_home_shares_its_load() -> None:
    async with serve([Behaviour(answer="a", first_token_seconds=0.2)] * 4) as served:
        async with anyio.create_task_group() as group:
            for _ in range(40):  # all of one conversation: one home
                group.start_soon(ask, served)
        started = [server.stats().started for server in served.servers]
        assert sum(started) == 40
        assert max(started) <= 16, started


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[{name: a, group: second, profile: l4, urls: [http://a]}]", "groups: primary, canary, fallback"),
        ("[{name: a, group: canary, profile: l4, urls: [http://a]}]", "set `weight` for a canary"),
        ("[{name: a, weight: 0.5, profile: l4, urls: [http://a]}]", "and for no other group"),
        ("[{name: a, urls: [http://a]}, {name: a, urls: [http://b]}]", "must be unique"),
        (
            "[{name: a, urls: [http://a]}, {name: b, group: canary, weight: 0.1, urls: [http://b]},"
            " {name: c, group: canary, weight: 0.1, urls: [http://b]}]",
            "at most one entry",
        ),
        ("[{name: a, group: fallback, profile: l4, urls: [http://a]}]", "must be of the group `primary`"),
        ("[{name: a, profile: tpu, urls: [http://a]}]", "no profile 'tpu': choose from a100, b200, cpu"),
        ("[{name: a, profile: /none.yaml, urls: [http://a]}]", "/none.yaml cannot be read"),
        ("[{name: a, profile: embedding, urls: [http://a]}]", "embedding.yaml has no `deadlines`"),
        ("[{name: a, profile: l4, urls: []}]", "urls"),
        ("{", "cannot be read"),
    ],
)
async def test_a_wrong_file_stops_the_boot_with_a_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    file = tmp_path / "models.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ModelsMisconfigured, match=sentence):
        async with open_models(ModelSettings(models_file=file)):
            pass
