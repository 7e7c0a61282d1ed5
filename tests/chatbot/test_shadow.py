"""A model on trial is asked with the last priority, at most two at once, and only the verdicts are counted."""

from collections import Counter

import anyio
import pytest

from chatbot.errors import ModelUnavailable
from chatbot.grounding import GroundingStream
from chatbot.models import Sampling
from chatbot.shadow import Shadow, Verdict
from evals.sample_bank import sample_banks
from knowledge.breaker import BreakerState
from llm_server.scripted import Behaviour
from tests.chatbot.grounding.fed_streams import passage
from tests.chatbot.models.scripted_pool import CHAT, Served, ask, serve

pytestmark = pytest.mark.anyio

ALL = 0.999_999
SAYS = passage(
    "deposit",
    "정기예금",
    "정기예금을 중도해지하면 약정금리 대신 중도해지금리가 적용됩니다. 중도해지금리는 연 1.20%입니다.",
)
HOLDS = "정기예금을 중도해지하면 중도해지금리가 적용됩니다."
SLOW = Behaviour(answer=HOLDS, token_seconds=5)
WRONG = "중도해지금리는 연 3.70%입니다."


def follow(shadow: Shadow, conversation_id: str = "c-1", *, scope: anyio.CancelScope | None = None) -> None:
    """Ask the shadow the prompt of `ask`; `scope` is cancelled by a revocation."""
    shadow.follow(
        CHAT,
        GroundingStream([SAYS], language="ko", question="", bank=sample_banks().first),
        sampling=Sampling(max_tokens=100),
        conversation_id=conversation_id,
        cache_salt="hanbit",
        within=lambda: scope or anyio.CancelScope(),
    )


async def verdicts(served: Served, *, times: int = 1) -> Counter[Verdict]:
    """Return the verdicts on the shadow's answers."""
    counts: Counter[Verdict] = Counter()
    async with anyio.create_task_group() as tasks:
        shadow = Shadow(served.models, tasks, hook=lambda verdict: counts.update([verdict]))
        for n in range(times):
            follow(shadow, f"c-{n}")
    return counts


@pytest.mark.parametrize(("text", "verdict"), [(HOLDS, "grounded"), (WRONG, "withheld")])
async def test_only_the_verdict_on_its_answer_is_kept(text: str, verdict: Verdict) -> None:
    async with serve([Behaviour(answer="x")], shadows=[Behaviour(answer=text)], share=ALL) as served:
        assert (await ask(served)).done.models == ("primary",)
        assert served.servers[1].stats().started == 0, "no customer's call goes to it"
        assert await verdicts(served) == {verdict: 1}
        request = served.servers[1].stats().requests[-1]
    assert (request.priority, request.cache_salt) == (1000, "hanbit")
    assert [(call.group, call.outcome) for call in served.calls] == [("primary", "ok"), ("shadow", "ok")]


async def test_a_question_that_comes_while_it_is_busy_is_skipped() -> None:
    async with serve([Behaviour()], shadows=[Behaviour(answer=HOLDS)], share=ALL) as served:
        assert (await verdicts(served, times=20)).total() == 2


async def test_conversations_outside_its_share_and_pools_without_one_ask_no_model() -> None:
    async with serve([Behaviour()], shadows=[Behaviour()], share=0.0) as served:
        assert await verdicts(served, times=5) == {}
    async with serve([Behaviour()], share=ALL) as served:
        assert await verdicts(served, times=5) == {}


async def test_one_that_fails_or_is_stopped_changes_no_answer() -> None:
    async with serve([Behaviour()], shadows=[Behaviour(fail_status=500)], share=ALL) as served:
        assert await verdicts(served) == {"failed": 1}
        served.models.pool.stop({"shadow"})
        assert await verdicts(served) == {}
        assert (await ask(served)).done.models == ("primary",)


async def test_it_makes_no_replica_ready() -> None:
    async with serve([Behaviour()], shadows=[Behaviour()], share=ALL) as served:
        served.members[0].breaker.trip()
        assert served.members[1].breaker.state is BreakerState.CLOSED
        with pytest.raises(ModelUnavailable):
            await served.models.health.ping()


async def test_it_is_left_when_the_process_ends() -> None:
    async with serve([Behaviour()], shadows=[SLOW], share=ALL) as served:
        async with anyio.create_task_group() as tasks:
            follow(Shadow(served.models, tasks, hook=lambda _: None))
            await _running(served, 1)
            tasks.cancel_scope.cancel()
        await _running(served, 0)
    assert [call.outcome for call in served.calls] == ["left"]


async def test_what_would_end_the_customers_answer_ends_it_and_frees_its_place() -> None:
    counts: Counter[Verdict] = Counter()
    shadowed = serve([Behaviour()], shadows=[SLOW], share=ALL)
    async with shadowed as served, anyio.create_task_group() as tasks:
        shadow, scope = Shadow(served.models, tasks, hook=lambda verdict: counts.update([verdict])), anyio.CancelScope()
        follow(shadow, scope=scope)
        await _running(served, 1)
        scope.cancel()
        await _running(served, 0)
        served.servers[1].tell(token_seconds=0.0)
        follow(shadow)
        follow(shadow)
    assert counts == {"grounded": 2}


async def _running(served: Served, calls: int) -> None:
    """Wait until the shadow is at so many calls."""
    with anyio.fail_after(5):
        await served.servers[1].until(lambda stats: stats.running == calls)
