"""A bounded fair queue for model slots, which reports queue positions.

An answer gets its `Place` before any other work. An answer that could not start within the first-token target is
rejected at once, with a retry time. Lower priority numbers are served first; vLLM uses the same numbers. Within a
priority, tenants share by start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996): each tenant is a flow, and the
next slot goes to the flow with the lowest start tag. A start tag is the virtual time at which the flow's previous work,
divided by its weight, ends. `capacity.py` sets the number of slots. docs/decisions/0007-admission.md has the reasons.
"""

import math
import time
from bisect import bisect_right
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

import anyio
from pydantic import BaseModel, Field

from chatbot.errors import Overloaded
from knowledge.identity import Principal, Role
from telemetry.supervision import contained

RejectionReason = Literal["late", "full", "share"]
"""`late`: the answer would start late; `full`: the queue is full; `share`: its tenant's share of the queue is full."""
OnWait = Callable[[int, float], None]
"""Called with the position in the queue, counted from 1, and the estimated seconds until the slot."""

# The weight of the newest answer in the moving averages, and their initial values.
_SMOOTHING = 0.1
_FIRST_SECONDS_PER_SLOT = 10.0
_FIRST_PROMPT_TOKENS = 1200.0
_FIRST_COST = 1400.0
# The measured prefill rate is clamped to between a quarter of the profile's rate and four times that rate.
_PREFILL_RANGE = 4.0
# The maximum wait of an overtaken answer, as a multiple of the first-token target.
_LONGEST_WAIT = 3.0


class AdmissionSettings(BaseModel, frozen=True):
    """The slots of this process, and the queue's length, deadline and order."""

    slots: int = Field(
        16,
        ge=1,
        description=(
            "answers: At most this many answers use models at once. It is also the number used while the endpoints' "
            "metrics are unreadable."
        ),
    )
    queue: int = Field(
        64, ge=1, description="answers: This many answers of a priority and the priorities before it may wait."
    )
    tenant_share: float = Field(
        0.5, gt=0, le=1, description="ratio: One tenant may hold at most this share of the queue."
    )
    first_token_target: float = Field(
        10.0, gt=0, description="seconds: A question is rejected if its answer would start later than this."
    )
    longest_retry: ClassVar[float] = 300.0  # seconds: the longest Retry-After; longer estimates are useless
    weights: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default={}, description="Tenants share the slots by these weights, as JSON. The default weight is 1."
    )
    priorities: dict[Role, Annotated[int, Field(ge=0)]] = Field(
        default={"service": 10, "evals": 20},
        description=(
            "Each role has this priority, as JSON: lower goes first, the default is 0. Other values need "
            "vLLM's `--scheduling-policy priority`."
        ),
    )
    notify_every: ClassVar[float] = 1.0  # seconds: the interval of position updates
    poll_every: ClassVar[float] = 1.0  # seconds: the interval of reading the endpoints' metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """An answer got its slot (for hooks)."""

    priority: int
    waited_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """An answer was rejected: it would start late, or the queue or its tenant's share of it is full (for hooks)."""

    priority: int
    reason: RejectionReason


Hook = Callable[[Started | Rejected], None]


@dataclass(slots=True, kw_only=True, eq=False)
class Place:
    """An answer's place in the queue, and then its slot; only `Admission` changes it."""

    tenant: str
    priority: int
    arrival: int
    cost: float
    """Prompt and answer tokens."""
    prompt_tokens: float
    state: Literal["opening", "waiting", "served", "left"] = "opening"
    """`opening`: the answer's turn is being opened, so it does not wait for a slot yet; `served`: it has a slot;
    `left`: it has given up its place or slot."""
    on_wait: OnWait | None = None
    notified_position: int = 0
    waiting_since: float = 0.0
    served_at: float = 0.0
    tokens_to_read: float = 0.0
    """Prompt tokens that the endpoints must read before this answer's first token, earlier answers' tokens included."""
    has_first_token: bool = False
    slot_given: anyio.Event = field(default_factory=anyio.Event)


@dataclass(slots=True)
class Flow:
    """A tenant's places of one priority in order of arrival; `start_tag` (virtual time) belongs to the first place."""

    weight: float
    start_tag: float = 0.0
    places: deque[Place] = field(default_factory=deque)


class Admission:
    """The queue and the slots of one process."""

    def __init__(
        self,
        settings: AdmissionSettings,
        *,
        prefill: float = math.inf,
        hook: Hook = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`prefill` is the prompt tokens per second of the endpoints' profiles."""
        self._settings = settings
        self._hook = hook
        self._clock = clock
        self._slots = settings.slots
        self._busy = 0
        self._unread_tokens = 0.0
        """Prompt tokens of all answers with a slot and without a first token: endpoints still read them."""
        self._flows: dict[tuple[int, str], Flow] = {}
        self._virtual_time: dict[int, float] = {}
        """By priority, the highest start tag of a served place."""
        self._arrivals = 0
        self._order: list[tuple[int, float, int, Place]] | None = None
        """The cache of `_in_order`; None after a change."""
        self._retry_at: dict[str, float] = {}
        """By tenant, the latest retry time of a rejected answer, on the clock."""
        self._profile_prefill = prefill
        self._prefill = prefill
        self._seconds_per_slot = _FIRST_SECONDS_PER_SLOT
        self._prompt_tokens = _FIRST_PROMPT_TOKENS
        self._cost = _FIRST_COST

    # --- observation -------------------------------------------------------------------------------------------------

    @property
    def slots(self) -> int:
        """The maximum number of answers at the endpoints."""
        return self._slots

    @slots.setter
    def slots(self, slots: int) -> None:
        self._slots = slots
        self._assign_free_slots()

    @property
    def busy(self) -> int:
        """The number of taken slots."""
        return self._busy

    @property
    def waiting(self) -> int:
        """The number of answers without a slot, including those whose turn is still being opened."""
        return sum(len(flow.places) for flow in self._flows.values())

    @property
    def waiting_by_priority(self) -> Mapping[int, int]:
        """The number of waiting answers for each priority of the settings."""
        counts = dict.fromkeys((0, *self._settings.priorities.values()), 0)
        for (priority, _), flow in self._flows.items():
            counts[priority] = counts.get(priority, 0) + len(flow.places)
        return counts

    @property
    def prefill(self) -> float:
        """Prompt tokens per second: the profiles' rate, corrected by measured times to first tokens."""
        return self._prefill

    def estimate_wait(self, position: int) -> float:
        """Return the estimated seconds until the answer at this position in the queue gets a slot."""
        return position / self._start_rate

    @property
    def _start_rate(self) -> float:
        """The number of answers that start per second while others wait: limited by slots, or by reading prompts."""
        slots_per_second = self._slots / max(self._seconds_per_slot, 1e-3)
        prompts_per_second = self._prefill / self._prompt_tokens
        return min(slots_per_second, prompts_per_second)

    @property
    def _readable_tokens(self) -> float:
        """The prompt tokens that the endpoints can read within the first-token target."""
        return self._settings.first_token_target * self._prefill

    @property
    def _room(self) -> int:
        """The number of answers of average size that could start now."""
        free_slots = max(0, self._slots - self._busy)
        readable_prompts = (self._readable_tokens - self._unread_tokens) / self._prompt_tokens
        least_prompts = 0 if self._unread_tokens else 1  # one prompt may always start
        return int(min(free_slots, max(readable_prompts, least_prompts)))

    # --- before the first byte ---------------------------------------------------------------------------------------

    @contextmanager
    def entered(self, who: Principal) -> Iterator[Place]:
        """Take a place as `enter` does; release it if the block raises (otherwise `leave` releases it later)."""
        place = self.enter(who)
        try:
            yield place
        except BaseException:
            self.leave(place)
            raise

    def enter(self, who: Principal) -> Place:
        """Take a place in the queue, or raise `Overloaded` with the time of a retry."""
        priority = self._priority_of(who)
        obstacle = self._obstacle(who.tenant, priority)
        if obstacle is not None:
            reason, missing_places = obstacle
            self._hook(Rejected(priority=priority, reason=reason))
            raise Overloaded(retry_after=self._retry_after(who.tenant, missing_places))
        return self.enter_unconditionally(who)

    def enter_unconditionally(self, who: Principal) -> Place:
        """Take a place for an answer that another process has admitted."""
        priority = self._priority_of(who)
        flow = self._flow(priority, who.tenant)
        self._arrivals += 1
        place = Place(
            tenant=who.tenant,
            priority=priority,
            arrival=self._arrivals,
            cost=self._cost,
            prompt_tokens=self._prompt_tokens,
        )
        flow.places.append(place)
        self._order = None
        return place

    def _obstacle(self, tenant: str, priority: int) -> tuple[RejectionReason, int] | None:
        """Return why an answer must be rejected, and how many places must become free first; None to admit it."""
        settings, room = self._settings, self._room
        waiting = {key: len(flow.places) for key, flow in self._flows.items() if key[0] <= priority}
        excess = sum(waiting.values()) + 1 - room - settings.queue
        if excess > 0:
            return "full", excess
        waiting_of_tenant = sum(count for (_, name), count in waiting.items() if name == tenant)
        most_of_tenant = max(1, int(settings.queue * settings.tenant_share))
        excess = waiting_of_tenant + 1 - room - most_of_tenant
        if excess > 0:
            return "share", excess
        starts_in_time = max(1, int(settings.first_token_target * self._start_rate))
        excess = self._ahead_of_next(tenant, priority) + 1 - room - starts_in_time
        return ("late", excess) if excess > 0 else None

    def _retry_after(self, tenant: str, missing_places: int) -> float:
        """Return the seconds until a retry; each further rejected answer of a tenant gets a later time."""
        now = self._clock()
        self._retry_at = {name: at for name, at in self._retry_at.items() if at > now}
        tenants = len({name for _, name in self._flows} | self._retry_at.keys() | {tenant})
        seconds_per_place = tenants / self._start_rate
        places_free_at = now + missing_places * seconds_per_place
        after_earlier_retry = self._retry_at.get(tenant, now) + seconds_per_place
        latest = now + self._settings.longest_retry
        self._retry_at[tenant] = min(max(places_free_at, after_earlier_retry), latest)
        return max(1.0, self._retry_at[tenant] - now)

    def _priority_of(self, who: Principal) -> int:
        return max((number for role, number in self._settings.priorities.items() if role in who.roles), default=0)

    # --- the queue ---------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def slot(
        self, place: Place, *, prompt_tokens: int, answer_tokens: int, on_wait: OnWait
    ) -> AsyncGenerator[None]:
        """Wait for a slot and hold it; `on_wait` is called at once if no slot is free, and by `notify` after changes.

        Raises:
            Overloaded: the wait exceeded its limit because other answers were served first.
        """
        place.prompt_tokens = prompt_tokens
        place.cost = max(1, prompt_tokens + answer_tokens)
        place.state = "waiting"
        place.waiting_since = self._clock()
        place.on_wait = on_wait
        self._prompt_tokens += _SMOOTHING * (max(1, prompt_tokens) - self._prompt_tokens)
        self._cost += _SMOOTHING * (place.cost - self._cost)
        self._order = None
        try:
            self._assign_free_slots()
            self.notify(place)
            await self._wait_for_slot(place)
            yield
        finally:
            self.leave(place)

    async def _wait_for_slot(self, place: Place) -> None:
        try:
            with anyio.fail_after(_LONGEST_WAIT * self._settings.first_token_target):
                await place.slot_given.wait()
        except TimeoutError as exc:
            raise Overloaded(retry_after=max(1.0, self.estimate_wait(1))) from exc

    def record_first_token(self, place: Place) -> None:
        """Record that the endpoints have read the answer's prompt (idempotent)."""
        if place.state != "served" or place.has_first_token:
            return
        place.has_first_token = True
        self._unread_tokens -= place.prompt_tokens
        seconds = self._clock() - place.served_at
        if seconds > 0 and math.isfinite(self._profile_prefill):
            slowest = self._profile_prefill / _PREFILL_RANGE
            fastest = self._profile_prefill * _PREFILL_RANGE
            measured = min(max(place.tokens_to_read / seconds, slowest), fastest)
            self._prefill += _SMOOTHING * (measured - self._prefill)
        self._assign_free_slots()

    def leave(self, place: Place) -> None:
        """Release the place and its slot (idempotent)."""
        if place.state == "left":
            return
        if place.state == "served":
            self._busy -= 1
            if not place.has_first_token:
                self._unread_tokens -= place.prompt_tokens
            seconds = self._clock() - place.served_at
            self._seconds_per_slot += _SMOOTHING * (seconds - self._seconds_per_slot)
        else:
            self._flows[place.priority, place.tenant].places.remove(place)
            self._drop_idle_flows(place.priority)
        place.state = "left"
        self._order = None
        self._assign_free_slots()

    def notify(self, *places: Place) -> None:
        """Call `on_wait` of the given places, by default of all, whose position has changed."""
        for position, (_, _, _, place) in enumerate(self._in_order(), 1):
            is_selected = not places or place in places
            has_changed = place.state == "waiting" and position != place.notified_position
            if is_selected and has_changed and place.on_wait is not None:
                place.notified_position = position
                with contained("place"):  # still notify the others
                    place.on_wait(position, self.estimate_wait(position))

    async def notify_forever(self) -> None:
        """Call `notify` every `notify_every` seconds until cancelled."""
        while True:
            await anyio.sleep(self._settings.notify_every)
            self.notify()

    def _flow(self, priority: int, tenant: str) -> Flow:
        """Return the tenant's flow; an idle flow starts at the current virtual time, so idle time earns no credit."""
        flow = self._flows.setdefault((priority, tenant), Flow(self._settings.weights.get(tenant, 1.0)))
        if not flow.places:
            flow.start_tag = max(flow.start_tag, self._virtual_time.get(priority, 0.0))
        return flow

    def _in_order(self) -> list[tuple[int, float, int, Place]]:
        """Return (priority, start tag, arrival, place) in the order in which the places are served."""
        if self._order is None:
            order = []
            for (priority, _), flow in self._flows.items():
                start_tag = flow.start_tag
                for place in flow.places:
                    order.append((priority, start_tag, place.arrival, place))
                    start_tag += place.cost / flow.weight
            self._order = sorted(order, key=lambda entry: entry[:3])
        return self._order

    def _ahead_of_next(self, tenant: str, priority: int) -> int:
        """Return how many places would be served before a new place of the tenant."""
        flow = self._flows.get((priority, tenant), Flow(1.0))
        start_tag = flow.start_tag
        if not flow.places:
            start_tag = max(start_tag, self._virtual_time.get(priority, 0.0))
        start_tag += sum(place.cost for place in flow.places) / flow.weight
        return bisect_right(self._in_order(), (priority, start_tag), key=lambda entry: entry[:2])

    def _assign_free_slots(self) -> None:
        """Assign free slots to the next places."""
        while self._busy < self._slots:
            next_in_line = self._next_place()
            if next_in_line is None:
                return
            flow, place = next_in_line
            # One prompt may always start; further prompts wait until the endpoints can read them within the target.
            if self._unread_tokens and self._unread_tokens + place.prompt_tokens > self._readable_tokens:
                return
            self._serve(flow, place)

    def _next_place(self) -> tuple[Flow, Place] | None:
        """Return the next place to serve, and its flow; None if no place waits."""
        candidates = []
        for (priority, _), flow in self._flows.items():
            place = next((place for place in flow.places if place.state == "waiting"), None)
            if place is not None:
                candidates.append((priority, flow.start_tag, place.arrival, flow, place))
        if not candidates:
            return None
        _, _, _, flow, place = min(candidates, key=lambda candidate: candidate[:3])
        return flow, place

    def _serve(self, flow: Flow, place: Place) -> None:
        """Give a waiting place a slot."""
        now = self._clock()
        flow.places.remove(place)
        self._virtual_time[place.priority] = max(self._virtual_time.get(place.priority, 0.0), flow.start_tag)
        flow.start_tag += place.cost / flow.weight
        self._drop_idle_flows(place.priority)
        self._order = None
        self._busy += 1
        self._unread_tokens += place.prompt_tokens
        place.state = "served"
        place.served_at = now
        place.tokens_to_read = self._unread_tokens
        self._hook(Started(priority=place.priority, waited_seconds=now - place.waiting_since))
        place.slot_given.set()

    def _drop_idle_flows(self, priority: int) -> None:
        """Drop idle flows whose start tag the virtual time has reached; if no place is left, reset the virtual time."""
        flows = {key: flow for key, flow in self._flows.items() if key[0] == priority}
        if not any(flow.places for flow in flows.values()):
            self._virtual_time.pop(priority, None)
        for key, flow in flows.items():
            if not flow.places and flow.start_tag <= self._virtual_time.get(priority, math.inf):
                del self._flows[key]
