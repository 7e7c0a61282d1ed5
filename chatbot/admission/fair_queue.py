"""Who gets a model slot when: a bounded queue before a bounded number of slots, in a fair order, its places told.

A customer's answer takes its `Place` before anything is done for it; one that could not start within the first-token
target is refused there and then, with the time at which to come back.  Priorities come first (a role's, which vLLM gets
as well), then tenants share by start-time fair queueing: the next slot is the tenant's whose work so far, divided by
its weight, is the least.  How many slots there are is heard from the endpoints (`capacity.py`).
`docs/decisions/0007-admission.md` says why it is so.
"""

import math
import time
from bisect import bisect_right
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Literal

import anyio
from pydantic import BaseModel, Field

from chatbot.errors import Overloaded
from knowledge.identity import Principal, Role

RejectionReason = Literal["late", "full", "share"]
OnWait = Callable[[int, float], None]
"""Hears the place in the queue and the seconds until its turn."""

# Of the newest answer in what is taken for usual.
_NEWEST = 0.1
_USUAL_SECONDS = 10.0
_USUAL_PROMPT = 1200.0
_USUAL_COST = 1400.0
# The measured prefill may be this many times the profile's, or that part of it.
_OFF_PROFILE = 4.0
# Targets that somebody waits whom others overtake, before the answer is given without a model.
_LONGEST_WAIT = 3.0


class AdmissionSettings(BaseModel, frozen=True):
    """How many answers this process serves at once, how many may wait and for how long, and who comes before whom."""

    slots: int = Field(
        16, ge=1, description="the most at once; all of them where the endpoints' metrics are unreadable"
    )
    queue: int = Field(64, ge=1, description="the most that may wait, of one priority and those before it")
    tenant_share: float = Field(0.5, gt=0, le=1, description="the most of the queue that one tenant may hold")
    first_token_target: float = Field(10.0, gt=0, description="nobody waits who would not start within these seconds")
    longest_retry: float = Field(300.0, ge=1, description="the longest that anybody is told to stay away, in seconds")
    weights: dict[str, Annotated[float, Field(gt=0)]] = {}
    """Of tenants; 1 where none is set."""
    priorities: dict[Role, Annotated[int, Field(ge=0)]] = {"service": 10, "evals": 20}
    """Of roles; lower goes first, 0 where none is set. Anything but 0 needs vLLM's `--scheduling-policy priority`."""
    tell_every: float = Field(1.0, gt=0, description="seconds between two looks for places that have changed")
    poll_every: float = Field(1.0, gt=0, description="seconds between two looks at the endpoints' metrics")


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """An answer got its slot, after so many seconds of waiting (for hooks)."""

    priority: int
    waited: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """An answer was refused: it would have started too late, the queue was full, or its tenant's share (for hooks)."""

    priority: int
    why: RejectionReason


Hook = Callable[[Started | Rejected], None]


@dataclass(slots=True, kw_only=True, eq=False)
class Place:
    """One answer's way through: it opens, waits, is served and has left. Only `Admission` changes it."""

    tenant: str
    priority: int
    arrival: int
    cost: float
    prompt_tokens: float
    state: Literal["opening", "waiting", "served", "left"] = "opening"
    on_wait: OnWait | None = None
    told: int = 0
    waits_since: float = 0.0
    served_at: float = 0.0
    before_first_token: float = 0.0
    """Prompt tokens that the endpoints had to read for its first token, those of answers before it included."""
    speaks: bool = False
    its_turn: anyio.Event = field(default_factory=anyio.Event)


@dataclass(slots=True)
class Flow:
    """A tenant's places of one priority, first come first; `start` is the virtual time at which its next one starts."""

    weight: float
    start: float = 0.0
    places: deque[Place] = field(default_factory=deque)


def nobody_counts(_: Started | Rejected) -> None:
    """No hook."""


class Admission:
    """The queue and the slots of one process."""

    def __init__(
        self,
        settings: AdmissionSettings,
        *,
        prefill: float = math.inf,
        hook: Hook = nobody_counts,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`prefill` is how many prompt tokens a second all endpoints together read, by their profiles."""
        self._settings = settings
        self._hook = hook
        self._clock = clock
        self._slots = settings.slots
        self._busy = 0
        self._reading = 0.0
        """Prompt tokens of served answers without a first token."""
        self._lanes: dict[tuple[int, str], Flow] = {}
        self._virtual: dict[int, float] = {}
        self._arrivals = 0
        self._order: list[tuple[int, float, int, Place]] | None = None
        self._come_back_at: dict[str, float] = {}
        self._profile_prefill = self._prefill = prefill
        self._seconds_a_slot = _USUAL_SECONDS
        self._prompt_tokens = _USUAL_PROMPT
        self._cost = _USUAL_COST

    # --- what can be seen --------------------------------------------------------------------------------------------

    @property
    def slots(self) -> int:
        """How many answers may be at the endpoints at once."""
        return self._slots

    @slots.setter
    def slots(self, slots: int) -> None:
        self._slots = slots
        self._fill()

    @property
    def busy(self) -> int:
        """How many slots are taken."""
        return self._busy

    @property
    def waiting(self) -> int:
        """How many answers wait for a slot, those included that are still being opened."""
        return sum(len(lane.places) for lane in self._lanes.values())

    @property
    def waiting_by_priority(self) -> Mapping[int, int]:
        """How many wait, of every priority there is."""
        counts = dict.fromkeys((0, *self._settings.priorities.values()), 0)
        for (priority, _), lane in self._lanes.items():
            counts[priority] = counts.get(priority, 0) + len(lane.places)
        return counts

    @property
    def prefill(self) -> float:
        """Prompt tokens a second: the profiles' rate, corrected by the first tokens that were seen."""
        return self._prefill

    def estimate(self, position: int) -> float:
        """Return the seconds until the answer at this place in the queue gets a slot, by the measured pace."""
        return position / self._pace

    @property
    def _pace(self) -> float:
        """How many answers start in a second while some wait."""
        return min(self._slots / max(self._seconds_a_slot, 1e-3), self._prefill / self._prompt_tokens)

    @property
    def _room(self) -> int:
        """How many answers of the usual kind could start now."""
        free = max(0, self._slots - self._busy)
        can_read = (self._settings.first_token_target * self._prefill - self._reading) / self._prompt_tokens
        return int(min(free, max(can_read, 0 if self._reading else 1)))

    # --- before the first byte ---------------------------------------------------------------------------------------

    @contextmanager
    def entered(self, who: Principal) -> Iterator[Place]:
        """Take a place for an answer; it is given back when the block fails, and else by `leave`.

        Raises:
            Overloaded: there is none, with the time at which there will be.
        """
        place = self.enter(who)
        try:
            yield place
        except BaseException:
            self.leave(place)
            raise

    def enter(self, who: Principal) -> Place:
        """Take a place in the queue.

        Raises:
            Overloaded: there is none, with the time at which there will be.
        """
        priority = self._priority_of(who)
        refused = self._obstacle(who.tenant, priority)
        if refused is not None:
            why, places_too_few = refused
            self._hook(Rejected(priority=priority, why=why))
            raise Overloaded(retry_after=self._come_back(who.tenant, places_too_few))
        return self.enter_unconditionally(who)

    def enter_unconditionally(self, who: Principal) -> Place:
        """Take a place for an answer that another process has admitted: it is never refused."""
        priority = self._priority_of(who)
        lane = self._lane(priority, who.tenant)
        self._arrivals += 1
        place = Place(
            tenant=who.tenant,
            priority=priority,
            arrival=self._arrivals,
            cost=self._cost,
            prompt_tokens=self._prompt_tokens,
        )
        lane.places.append(place)
        self._order = None
        return place

    def _obstacle(self, tenant: str, priority: int) -> tuple[RejectionReason, int] | None:
        """Return why an answer cannot come in, and how many places must be given back before one can."""
        settings, room = self._settings, self._room
        before = [len(lane.places) for (other, _), lane in self._lanes.items() if other <= priority]
        too_many = sum(before) + 1 - room - settings.queue
        if too_many > 0:
            return "full", too_many
        mine = sum(
            len(lane.places) for (other, name), lane in self._lanes.items() if other <= priority and name == tenant
        )
        too_many = mine + 1 - room - max(1, int(settings.queue * settings.tenant_share))
        if too_many > 0:
            return "share", too_many
        late = self._ahead_of_next(tenant, priority) + 1 - room - max(1, int(settings.first_token_target * self._pace))
        return ("late", late) if late > 0 else None

    def _come_back(self, tenant: str, places_too_few: int) -> float:
        """Return when the tenant's next place will be free that was not promised to somebody sent away before."""
        now = self._clock()
        self._come_back_at = {name: at for name, at in self._come_back_at.items() if at > now}
        tenants = len({name for _, name in self._lanes} | self._come_back_at.keys() | {tenant})
        a_place = tenants / self._pace
        at = max(now + places_too_few * a_place, self._come_back_at.get(tenant, now) + a_place)
        self._come_back_at[tenant] = min(at, now + self._settings.longest_retry)
        return max(1.0, self._come_back_at[tenant] - now)

    def _priority_of(self, who: Principal) -> int:
        return max((number for role, number in self._settings.priorities.items() if role in who.roles), default=0)

    # --- the queue ---------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def slot(
        self, place: Place, *, prompt_tokens: int, answer_tokens: int, on_wait: OnWait
    ) -> AsyncGenerator[None]:
        """Hold a slot, in turn; `on_wait` is called at once if none is free, and when `tell` finds the place changed.

        Raises:
            Overloaded: others went first for longer than anybody should wait.
        """
        place.prompt_tokens, place.cost = prompt_tokens, max(1, prompt_tokens + answer_tokens)
        self._prompt_tokens += _NEWEST * (max(1, prompt_tokens) - self._prompt_tokens)
        self._cost += _NEWEST * (place.cost - self._cost)
        place.state, place.waits_since, place.on_wait = "waiting", self._clock(), on_wait
        self._order = None
        try:
            self._fill()
            self.notify(place)
            await self._its_turn(place)
            yield
        finally:
            self.leave(place)

    async def _its_turn(self, place: Place) -> None:
        try:
            with anyio.fail_after(_LONGEST_WAIT * self._settings.first_token_target):
                await place.its_turn.wait()
        except TimeoutError as exc:
            raise Overloaded(retry_after=max(1.0, self.estimate(1))) from exc

    def first_token(self, place: Place) -> None:
        """Take note, once, that an answer speaks: the endpoints have read its prompt."""
        if place.state != "served" or place.speaks:
            return
        place.speaks = True
        self._reading -= place.prompt_tokens
        seconds = self._clock() - place.served_at
        if seconds > 0 and math.isfinite(self._profile_prefill):
            slowest, fastest = self._profile_prefill / _OFF_PROFILE, self._profile_prefill * _OFF_PROFILE
            seen = min(max(place.before_first_token / seconds, slowest), fastest)
            self._prefill += _NEWEST * (seen - self._prefill)
        self._fill()

    def leave(self, place: Place) -> None:
        """Give back whatever the place holds; a second time does nothing."""
        if place.state == "left":
            return
        if place.state == "served":
            self._busy -= 1
            self._reading -= 0 if place.speaks else place.prompt_tokens
            self._seconds_a_slot += _NEWEST * (self._clock() - place.served_at - self._seconds_a_slot)
        else:
            self._lanes[place.priority, place.tenant].places.remove(place)
            self._forget_what_is_over(place.priority)
        place.state = "left"
        self._order = None
        self._fill()

    def notify(self, *places: Place) -> None:
        """Tell these, or everybody who waits, their place in the queue where it is not what they were last told."""
        for position, (_, _, _, place) in enumerate(self._in_order(), 1):
            told = place.state == "waiting" and position != place.told and (not places or place in places)
            if told and place.on_wait is not None:
                place.told = position
                place.on_wait(position, self.estimate(position))

    async def notify_forever(self) -> None:
        """Tell everybody whose place has changed, at most so often; for ever."""
        while True:
            await anyio.sleep(self._settings.tell_every)
            self.notify()

    def _lane(self, priority: int, tenant: str) -> Flow:
        """Return the tenant's lane; one that was empty starts now, whatever it left unused before."""
        lane = self._lanes.setdefault((priority, tenant), Flow(self._settings.weights.get(tenant, 1.0)))
        if not lane.places:
            lane.start = max(lane.start, self._virtual.get(priority, 0.0))
        return lane

    def _in_order(self) -> list[tuple[int, float, int, Place]]:
        """Return all places in the order in which they would be served if nobody else came."""
        if self._order is None:
            order = []
            for (priority, _), lane in self._lanes.items():
                start = lane.start
                for place in lane.places:
                    order.append((priority, start, place.arrival, place))
                    start += place.cost / lane.weight
            self._order = sorted(order, key=lambda entry: entry[:3])
        return self._order

    def _ahead_of_next(self, tenant: str, priority: int) -> int:
        """Return how many places would be served before one that the tenant took now."""
        lane = self._lanes.get((priority, tenant), Flow(1.0))
        start = lane.start if lane.places else max(lane.start, self._virtual.get(priority, 0.0))
        start += sum(place.cost for place in lane.places) / lane.weight
        return bisect_right(self._in_order(), (priority, start), key=lambda entry: entry[:2])

    def _fill(self) -> None:
        """Start whoever may start now."""
        while self._busy < self._slots and (found := self._next()) is not None:
            lane, place = found
            # One prompt is always read; those after it wait until the endpoints could read them within the target.
            most = self._settings.first_token_target * self._prefill
            if self._reading and self._reading + place.prompt_tokens > most:
                return
            self._serve(lane, place)

    def _next(self) -> tuple[Flow, Place] | None:
        """Return the first place that is ready, of the lane that is due."""
        ready = [
            ((priority, lane.start, place.arrival), lane, place)
            for (priority, _), lane in self._lanes.items()
            for place in [next((each for each in lane.places if each.state == "waiting"), None)]
            if place is not None
        ]
        if not ready:
            return None
        _, lane, place = min(ready, key=lambda entry: entry[0])
        return lane, place

    def _serve(self, lane: Flow, place: Place) -> None:
        now = self._clock()
        lane.places.remove(place)
        self._virtual[place.priority] = max(self._virtual.get(place.priority, 0.0), lane.start)
        lane.start += place.cost / lane.weight
        self._forget_what_is_over(place.priority)
        self._order = None
        self._busy += 1
        self._reading += place.prompt_tokens
        place.state, place.served_at, place.before_first_token = "served", now, self._reading
        self._hook(Started(priority=place.priority, waited=now - place.waits_since))
        place.its_turn.set()

    def _forget_what_is_over(self, priority: int) -> None:
        """Drop the empty lanes that are no longer ahead of the others; when nobody waits, all are even again."""
        lanes = {key: lane for key, lane in self._lanes.items() if key[0] == priority}
        if not any(lane.places for lane in lanes.values()):
            self._virtual.pop(priority, None)
        for key, lane in lanes.items():
            if not lane.places and lane.start <= self._virtual.get(priority, math.inf):
                del self._lanes[key]
