"""Slots are given in a fair order, waiting is told, nobody waits in vain, and no slot is ever lost."""

import math
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import TaskGroup
from hypothesis import given, settings
from hypothesis import strategies as st

from chatbot.admission.fair_queue import Admission, AdmissionSettings, Place, Rejected, Started
from chatbot.errors import Overloaded
from knowledge.identity import Principal

pytestmark = pytest.mark.anyio

CUSTOMER = frozenset({"customer"})
SERVICE = frozenset({"service"})


def of(tenant: str, roles: frozenset[str] = CUSTOMER) -> Principal:
    return Principal(tenant=tenant, sub="lee", roles=roles, groups=frozenset())


async def settled() -> None:
    """Let every task go as far as it can."""
    for _ in range(5):
        await anyio.lowlevel.checkpoint()


@dataclass
class Simulation:
    """An admission with a clock of its own, and the answers that are in it by name."""

    admission: Admission
    tasks: TaskGroup
    now: list[float] = field(default_factory=lambda: [0.0])
    served: list[str] = field(default_factory=list)
    positions: defaultdict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    estimates: dict[str, float] = field(default_factory=dict)
    given_up: list[str] = field(default_factory=list)
    places: dict[str, Place] = field(default_factory=dict)
    ends: dict[str, anyio.Event] = field(default_factory=dict)
    scopes: dict[str, anyio.CancelScope] = field(default_factory=dict)

    async def come(
        self, name: str, who: Principal, *, prompt: int = 1000, answer: int = 200, unconditionally: bool = False
    ) -> Place:
        """Take a place and let its task run until it waits."""
        enter = self.admission.enter_unconditionally if unconditionally else self.admission.enter
        place = self.places[name] = enter(who)
        self.ends[name], self.scopes[name] = anyio.Event(), anyio.CancelScope()
        self.tasks.start_soon(self._stay, name, place, prompt, answer)
        await settled()
        return place

    async def _stay(self, name: str, place: Place, prompt: int, answer: int) -> None:
        def on_wait(position: int, seconds: float) -> None:
            self.positions[name].append(position)
            self.estimates[name] = seconds

        slot = self.admission.slot(place, prompt_tokens=prompt, answer_tokens=answer, on_wait=on_wait)
        with self.scopes[name]:
            try:
                async with slot:
                    self.served.append(name)
                    await self.ends[name].wait()
            except Overloaded:
                self.given_up.append(name)

    async def end(self, name: str, *, after: float = 0.0) -> None:
        self.now[0] += after
        self.ends[name].set()
        await settled()

    async def cancel(self, name: str) -> None:
        self.scopes[name].cancel()
        await settled()


@asynccontextmanager
async def simulated(
    configured: AdmissionSettings | None = None, *, prefill: float = math.inf, records: list[object] | None = None
) -> AsyncGenerator[Simulation]:
    now = [0.0]
    admission = Admission(
        configured or AdmissionSettings(slots=1),
        prefill=prefill,
        hook=(records if records is not None else []).append,
        clock=lambda: now[0],
    )
    async with anyio.create_task_group() as tasks:
        yield Simulation(admission, tasks, now=now)
        tasks.cancel_scope.cancel()
    assert (admission.busy, admission.waiting) == (0, 0)


async def test_the_estimate_is_the_measured_pace() -> None:
    async with simulated(AdmissionSettings(slots=2, first_token_target=100)) as simulation:
        for n in range(100):
            await simulation.come(f"{n}", of("hanbit"))
            await simulation.end(f"{n}", after=4.0)
        for name in ("a", "b", "c", "d"):
            await simulation.come(name, of("hanbit"))
    assert simulation.positions["d"] == [2]
    assert simulation.estimates["d"] == pytest.approx(4.0, rel=0.01), "two slots of four seconds: two starts in four"


async def test_a_refusal_has_its_reason_and_the_wait() -> None:
    records: list[object] = []
    async with simulated(AdmissionSettings(slots=1, queue=1, tenant_share=1), records=records) as simulation:
        await simulation.come("runs", of("hanbit"))
        await simulation.come("waits", of("hanbit"))
        with pytest.raises(Overloaded) as refused:
            await simulation.come("refused", of("hanbit"))
        assert refused.value.retry_after == pytest.approx(10.0), "one place too few, at one start in ten seconds"
        await simulation.end("runs", after=10.0)
        await simulation.come("came back", of("hanbit"))
    assert Rejected(priority=0, reason="full") in records
    waits = [record.waited_seconds for record in records if isinstance(record, Started)]
    assert waits[:2] == [0.0, 10.0]


async def test_one_tenant_cannot_fill_the_queue() -> None:
    records: list[object] = []
    configured = AdmissionSettings(slots=1, queue=8, tenant_share=0.5, first_token_target=1000)
    async with simulated(configured, records=records) as simulation:
        for n in range(5):
            await simulation.come(f"{n}", of("loud"))
        with pytest.raises(Overloaded):
            await simulation.come("one too many", of("loud"))
        await simulation.come("quiet", of("quiet"))
        assert simulation.positions["quiet"][0] <= 2, "and goes before the burst"
        assert simulation.admission.waiting == 5
    assert Rejected(priority=0, reason="share") in records


async def test_a_burst_leaves_room_for_those_who_would_start_in_time() -> None:
    records: list[object] = []
    configured = AdmissionSettings(slots=1, queue=64, first_token_target=20)
    async with simulated(configured, records=records) as simulation:
        for n in range(3):
            await simulation.come(f"{n}", of("loud"))
        with pytest.raises(Overloaded):
            await simulation.come("late", of("loud"))
        await simulation.come("in time", of("quiet"))
        assert simulation.positions["in time"][0] <= 2
    assert Rejected(priority=0, reason="late") in records


async def test_an_answer_of_another_process_is_never_refused() -> None:
    admission = Admission(AdmissionSettings(slots=1, queue=1, tenant_share=1))
    places = [admission.enter(of("hanbit")) for _ in range(2)]
    with pytest.raises(Overloaded):
        admission.enter(of("hanbit"))
    places.append(admission.enter_unconditionally(of("hanbit")))
    for place in places:
        admission.leave(place)
        admission.leave(place)
    assert admission.waiting == 0


async def test_a_place_overtaken_for_too_long_is_given_up() -> None:
    async with simulated(AdmissionSettings(slots=1, first_token_target=0.01)) as simulation:
        await simulation.come("runs", of("hanbit"))
        await simulation.come("waits", of("hanbit"))
        with anyio.fail_after(5):
            while not simulation.given_up:
                await anyio.lowlevel.checkpoint()
        assert (simulation.given_up, simulation.admission.waiting) == (["waits"], 0)


async def test_a_slot_handed_to_a_cancelled_place_is_not_lost() -> None:
    async with simulated() as simulation:
        await simulation.come("runs", of("hanbit"))
        await simulation.come("handed and cancelled", of("hanbit"))
        simulation.ends["runs"].set()
        while simulation.places["handed and cancelled"].state == "waiting":
            await anyio.lowlevel.checkpoint()
        await simulation.cancel("handed and cancelled")
        assert (simulation.admission.busy, simulation.admission.waiting) == (0, 0)


async def test_customers_go_before_services_and_those_before_evals() -> None:
    async with simulated(AdmissionSettings(slots=1, first_token_target=100)) as simulation:
        await simulation.come("runs", of("hanbit"))
        await simulation.come("evals", of("hanbit", frozenset({"customer", "evals"})))
        await simulation.come("service", of("hanbit", SERVICE))
        await simulation.come("customer", of("hanbit"))
        assert simulation.admission.waiting_by_priority == {0: 1, 10: 1, 20: 1}
        for name in ("runs", "customer", "service"):
            await simulation.end(name)
        assert simulation.served == ["runs", "customer", "service", "evals"]


async def test_a_batch_that_fills_the_queue_keeps_no_customer_out() -> None:
    async with simulated(AdmissionSettings(slots=1, queue=2, tenant_share=1, first_token_target=100)) as simulation:
        for n in range(3):
            await simulation.come(f"{n}", of("hanbit", SERVICE))
        with pytest.raises(Overloaded):
            await simulation.come("more", of("hanbit", SERVICE))
        await simulation.come("customer", of("hanbit"))
        assert simulation.positions["customer"] == [1]


async def test_work_is_shared_by_weight_and_by_the_cost_of_answers() -> None:
    configured = AdmissionSettings(slots=1, queue=200, first_token_target=10_000, weights={"twice": 2.0})
    async with simulated(configured) as simulation:
        await simulation.come("runs", of("other"))
        for n in range(30):
            for name, prompt, answer in (("once", 800, 200), ("twice", 800, 200), ("dear", 3000, 1000)):
                await simulation.come(f"{name} {n}", of(name), prompt=prompt, answer=answer)
        for _ in range(39):
            await simulation.end(simulation.served[-1])
        shares = Counter(name.split()[0] for name in simulation.served[1:])
    assert shares == {"twice": 24, "once": 12, "dear": 3}


async def test_prompts_start_only_as_fast_as_they_can_be_read() -> None:
    async with simulated(AdmissionSettings(slots=4, first_token_target=10), prefill=160) as simulation:
        for n in range(2):
            await simulation.come(f"{n}", of("hanbit"), prompt=1200)
        assert simulation.served == ["0"], "two prompts would take 15 of 10 s"
        simulation.now[0] += 7.5
        simulation.admission.record_first_token(simulation.places["0"])
        simulation.admission.record_first_token(simulation.places["0"])
        await settled()
        assert simulation.served == ["0", "1"]
        await simulation.come("2", of("hanbit"), prompt=1200)
        await simulation.end("1")
        assert simulation.served == ["0", "1", "2"], "an answer that ends without a token is not read any more"


async def test_the_prefill_is_corrected_by_the_first_tokens_within_bounds() -> None:
    async with simulated(AdmissionSettings(slots=1), prefill=1000) as simulation:
        for n in range(100):
            await simulation.come(f"{n}", of("hanbit"), prompt=1000)
            simulation.now[0] += 2.0
            simulation.admission.record_first_token(simulation.places[f"{n}"])
            await simulation.end(f"{n}")
        assert simulation.admission.prefill == pytest.approx(500, rel=0.01)
        for n in range(100, 300):
            await simulation.come(f"{n}", of("hanbit"), prompt=1000)
            simulation.now[0] += 1000.0
            simulation.admission.record_first_token(simulation.places[f"{n}"])
            await simulation.end(f"{n}")
        assert simulation.admission.prefill == pytest.approx(250, rel=0.01), "a stalled endpoint is not a slow one"


TENANTS = ("a", "b", "c")


def raise_key_error() -> None:
    raise KeyError("an opening that fails")


@dataclass
class Steps:
    """One of everything that can happen to an admission, whatever it holds now."""

    simulation: Simulation
    slots: int
    count: int = 0

    async def take(self, step: str, who: Principal, number: int) -> None:
        self.count += 1
        self.simulation.now[0] += 1.0
        places = self.simulation.places
        present = [name for name, place in places.items() if place.state in ("waiting", "served")]
        chosen = present[number % len(present)] if present else ""
        match step:
            case "come":
                await self._come(who, 100 * number)
            case "fail":
                self._fail(who)
            case "slots":
                self.simulation.admission.slots = self.slots = 1 + number % 3
                await settled()
            case "end" if chosen in self.simulation.served:
                await self.simulation.end(chosen)
            case "cancel" if chosen:
                await self.simulation.cancel(chosen)
            case "token" if chosen:
                self.simulation.admission.record_first_token(places[chosen])

    async def _come(self, who: Principal, prompt: int) -> None:
        with suppress(Overloaded):
            await self.simulation.come(f"{self.count}", who, prompt=prompt)

    def _fail(self, who: Principal) -> None:
        with suppress(Overloaded, KeyError), self.simulation.admission.entered(who):
            raise_key_error()

    def check(self, queue: int, *, always_full: bool) -> None:
        admission = self.simulation.admission
        states = Counter(place.state for place in self.simulation.places.values())
        assert (admission.busy, admission.waiting) == (states["served"], states["waiting"])
        assert admission.busy <= 3
        # Room that was there when somebody came may be gone; each of the two priorities has a queue before it.
        assert admission.waiting <= 2 * queue + 3
        if admission.waiting:
            assert admission.busy >= (self.slots if always_full else 1), "somebody waits while there is room"


ROLES = (("customer", CUSTOMER), ("service", SERVICE))
STEP = st.tuples(
    st.sampled_from(["come", "come", "come", "end", "cancel", "token", "slots", "fail"]),
    st.builds(of, st.sampled_from(TENANTS), st.sampled_from([CUSTOMER, SERVICE])),
    st.integers(min_value=0, max_value=30),
)


@given(
    steps=st.lists(STEP, max_size=120),
    queue=st.integers(min_value=1, max_value=6),
    prefill=st.sampled_from([200.0, math.inf]),
)
@settings(max_examples=100, deadline=None)
def test_whatever_happens_no_slot_is_lost(steps: list[tuple[str, Principal, int]], queue: int, prefill: float) -> None:
    configured = AdmissionSettings(slots=3, queue=queue, first_token_target=15)

    async def live() -> None:
        async with simulated(configured, prefill=prefill) as simulation:
            happening = Steps(simulation, slots=3)
            for step, who, number in steps:
                await happening.take(step, who, number)
                happening.check(queue, always_full=prefill == math.inf)
            for name, place in simulation.places.items():
                if place.state != "left":
                    await simulation.cancel(name)
            admission = simulation.admission
            assert (admission.busy, admission.waiting) == (0, 0)
            await check_nothing_is_remembered(simulation)

    anyio.run(live)


async def check_nothing_is_remembered(simulation: Simulation) -> None:
    """Assert that those who left hold no prompt to be read, and that all their tenants are even again."""
    simulation.admission.slots = 1
    await simulation.come("long", of("other"), prompt=10**9, unconditionally=True)
    assert simulation.served[-1] == "long", "a prompt of any length is read where no other is"
    arrivals = [(f"{role} of {tenant}", of(tenant, roles)) for role, roles in ROLES for tenant in TENANTS]
    for name, who in arrivals:
        await simulation.come(name, who, unconditionally=True)
    for expected in ["long", *(name for name, _ in arrivals)]:
        assert simulation.served[-1] == expected, "each tenant in the order of arrival"
        await simulation.end(expected)
