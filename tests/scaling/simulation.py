"""A pool of model servers, the gateway before it and Kubernetes' scaler, second by second of events: no cluster needed.

A replica reads prompts one after the other and writes all its answers together, both at its profile's speeds; while it
writes, reading is slower by the part of the machine that writing takes. The gateway starts what the pool can begin
within the first-token target, lets that much wait, and turns the rest away, as `chatbot.admission` does; where no
replica is up it answers without a model. The scaler is KEDA's query, term by term, and the HorizontalPodAutoscaler's
arithmetic, with the behaviour that the chart renders. A pool wakes from zero; that it falls asleep is not played.
"""

import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count

from llm_server.profile import Profile

# The scaler looks every 15 s at what Prometheus scraped up to 15 s before; within 10 % of its target it does nothing.
SYNC, SCRAPE, TOLERANCE = 15.0, 15.0, 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What an answer takes: prompt tokens that are read (not cached), and answer tokens."""

    prompt_tokens: float = 1400.0
    answer_tokens: float = 200.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What the chart renders for a pool."""

    least: int
    most: int
    answers_per_replica: float
    asked: frozenset[str]
    """The metrics that the query adds up."""
    answer_seconds: float
    up_percent: float
    up_pods: int
    up_period: float
    calm_seconds: float
    seconds_per_pod_down: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Seconds: a start on a warm GPU, what a new node takes beyond that, and how many GPUs wait warm."""

    load_seconds: float
    node_seconds: float
    warm: int
    drain_seconds: float


@dataclass(slots=True, eq=False)
class Replica:
    """A model server."""

    ready_at: float
    reads_until: float = 0.0
    writing: int = 0
    running: int = 0
    leaves_by: float = math.inf

    def takes(self, now: float) -> bool:
        """Return whether it may be given an answer."""
        return self.ready_at <= now and self.leaves_by == math.inf


@dataclass(slots=True)
class SimulationResult:
    """What happened."""

    first_tokens: list[tuple[float, float]] = field(default_factory=list)
    """(asked at, seconds to the first token)"""
    turned_away: list[float] = field(default_factory=list)
    without_model: list[float] = field(default_factory=list)
    lost: int = 0
    sizes: list[tuple[float, int]] = field(default_factory=list)
    """(at, replicas wanted), at each change"""


class Simulation:
    """One run; `rate(t)` is questions a second."""

    def __init__(
        self,
        profile: Profile,
        policy: Policy,
        place: Place,
        rate: Callable[[float], float],
        *,
        target_seconds: float,
        load: Load | None = None,
        seed: int = 1,
    ) -> None:
        self._profile, self._policy, self._place, self._rate = profile, policy, place, rate
        self._load = load or Load()
        self._target = target_seconds
        self._chance = random.Random(seed)  # noqa: S311  a reproducible day
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._numbers = count()
        self._replicas = [Replica(0.0) for _ in range(policy.least)]
        self._queue: deque[float] = deque()
        self._lately: dict[str, deque[float]] = {"chatbot_turned_away_total": deque(), "chatbot_ladder_total": deque()}
        """When, in the last minute: questions that nobody's slot or queue shows."""
        self._warm = [0.0] * place.warm
        """From when on each placeholder has its GPU."""
        self._seen: deque[tuple[float, float]] = deque()
        self._wishes: deque[tuple[float, int]] = deque()
        self._changes: deque[tuple[float, int]] = deque()
        self.result = SimulationResult(sizes=[(0.0, policy.least)])

    def run(self, seconds: float) -> SimulationResult:
        """Play the time and return what happened."""
        self._at(0.0, self._ask)
        self._at(SYNC, self._scale)
        self._at(1.0, self._scrape)
        while self._events and self._events[0][0] <= seconds:
            now, _, event = heappop(self._events)
            event(now)
        return self.result

    def _at(self, when: float, event: Callable[[float], None]) -> None:
        heappush(self._events, (when, next(self._numbers), event))

    # --- customers and the gateway -----------------------------------------------------------------------------------

    def _ask(self, now: float) -> None:
        self._at(now + self._chance.expovariate(self._rate(now)), self._ask)
        able = [replica for replica in self._replicas if replica.takes(now)]
        if not able:
            self._lately["chatbot_ladder_total"].append(now)
            self.result.without_model.append(now)
            return
        if len(self._queue) > self._target * len(able) / self._busy_seconds:
            self._lately["chatbot_turned_away_total"].append(now)
            self.result.turned_away.append(now)
            return
        self._queue.append(now)
        self._fill(now)

    @property
    def _busy_seconds(self) -> float:
        """Seconds of a whole replica that an answer takes."""
        speeds = self._profile.speeds
        return self._load.prompt_tokens / speeds.prefill + self._load.answer_tokens / speeds.all_streams

    def _fill(self, now: float) -> None:
        while self._queue:
            free = [r for r in self._replicas if r.takes(now) and r.running < self._profile.engine.max_num_seqs]
            free = [r for r in free if r.reads_until - now < self._target]
            if not free:
                return
            self._start(min(free, key=lambda r: (r.reads_until, r.running)), self._queue.popleft(), now)

    def _start(self, replica: Replica, asked: float, now: float) -> None:
        speeds = self._profile.speeds
        replica.running += 1
        slower = 1 + min(1.0, replica.writing * speeds.one_stream / speeds.all_streams)
        replica.reads_until = max(now, replica.reads_until) + self._load.prompt_tokens / speeds.prefill * slower
        self._at(replica.reads_until, lambda then: self._write(replica, asked, then))

    def _write(self, replica: Replica, asked: float, now: float) -> None:
        self.result.first_tokens.append((asked, now - asked))
        replica.writing += 1
        speeds = self._profile.speeds
        pace = min(speeds.one_stream, speeds.all_streams / replica.writing)
        tokens = self._load.answer_tokens * self._chance.uniform(0.5, 1.5)
        self._at(now + tokens / pace, lambda then: self._end(replica, then))
        self._fill(now)

    def _end(self, replica: Replica, now: float) -> None:
        replica.writing -= 1
        replica.running -= 1
        # Past its grace the pod was killed: this answer had not ended then.
        self.result.lost += now > replica.leaves_by
        self._fill(now)

    # --- Kubernetes --------------------------------------------------------------------------------------------------

    def _scrape(self, now: float) -> None:
        terms = {
            "chatbot_busy_slots": float(sum(r.running for r in self._replicas)),
            "chatbot_queued_answers": float(len(self._queue)),
        }
        for name, times in self._lately.items():
            while times and times[0] < now - 60:
                times.popleft()
            terms[name] = len(times) / 60 * self._policy.answer_seconds
        self._seen.append((now, sum(term for name, term in terms.items() if name in self._policy.asked)))
        self._at(now + SCRAPE, self._scrape)

    def _scale(self, now: float) -> None:
        self._at(now + SYNC, self._scale)
        size = self.result.sizes[-1][1]
        wish = self._wish(self._seen[-1][1], size) if self._seen else size
        self._wishes.append((now, wish))
        while self._wishes[0][0] < now - self._policy.calm_seconds:
            self._wishes.popleft()
        new = self._up(wish, size, now) if wish > size else self._down(size, now)
        if new != size:
            self._resize(size, new, now)

    def _wish(self, demand: float, size: int) -> int:
        if size == 0:
            return 1 if demand > 0 else 0  # KEDA's step; the autoscaler's begin at 1
        ratio = demand / (self._policy.answers_per_replica * size)
        if abs(ratio - 1) <= TOLERANCE:
            return size
        return min(self._policy.most, max(1, self._policy.least, math.ceil(demand / self._policy.answers_per_replica)))

    def _up(self, wish: int, size: int, now: float) -> int:
        added = sum(change for at, change in self._changes if at > now - self._policy.up_period and change > 0)
        before = size - added
        most = max(math.ceil(before * (1 + self._policy.up_percent / 100)), before + self._policy.up_pods)
        return max(size, min(wish, most))

    def _down(self, size: int, now: float) -> int:
        lowest = max(wish for _, wish in self._wishes)
        period = self._policy.seconds_per_pod_down
        taken = sum(-change for at, change in self._changes if at > now - period and change < 0)
        return max(lowest, size - (1 - taken)) if lowest < size and taken < 1 else size

    def _resize(self, size: int, new: int, now: float) -> None:
        self._changes.append((now, new - size))
        self.result.sizes.append((now, new))
        staying = [replica for replica in self._replicas if replica.leaves_by == math.inf]
        for _ in range(new - size):
            ready = now + self._place.load_seconds + self.node(now)
            self._replicas.append(Replica(ready))
            self._at(ready, self._fill)
        for replica in staying[new:]:
            replica.leaves_by = now + self._place.drain_seconds

    def node(self, now: float) -> float:
        """Return how long a replica waits for its GPU; a placeholder that it displaces waits for the next node."""
        free = next((n for n, since in enumerate(self._warm) if since <= now), None)
        if free is None:
            return self._place.node_seconds
        self._warm[free] = now + self._place.node_seconds
        return 0.0
