"""A discrete-event simulation of a pool of model servers, the gateway before it and Kubernetes' autoscaler.

A replica prefills prompts one after the other and decodes all its answers together, both at its profile's speeds;
while it decodes, prefill is slower by the share of the machine that decoding takes. The gateway starts the answers that
the pool can begin within the first-token target, queues as many more, and turns the rest away, as `chatbot.admission`
does; without a ready replica it answers without a model. The scaler is KEDA's query, term by term, and the algorithm of
the HorizontalPodAutoscaler (kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale), with the
behaviour that the chart renders. A pool is woken from zero replicas; scaling to zero is not simulated.
"""

import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from heapq import heappop, heappush
from itertools import count

from llm_server.profile import Profile

# Kubernetes' and Prometheus' defaults.
SYNC_SECONDS, SCRAPE_SECONDS, TOLERANCE = 15.0, 15.0, 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerSize:
    """The tokens of an answer: those of its prompt that are not in the prefix cache, and those that are generated."""

    prompt_tokens: float = 1400.0
    answer_tokens: float = 200.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingPolicy:
    """The scaling of a pool as the chart renders it."""

    min_replicas: int
    max_replicas: int
    answers_per_replica: float
    metrics: frozenset[str]
    """The metrics that the query adds up."""
    answer_seconds: float
    up_percent: float
    up_pods: int
    up_period_seconds: float
    stabilization_seconds: float
    """The HorizontalPodAutoscaler's `stabilizationWindowSeconds` for scaling down."""
    seconds_per_pod_down: float
    calendar: tuple[tuple[float, float, int], ...] = ()
    """(begin, end, replicas): floors of KEDA's cron triggers, in seconds of the simulation."""

    def floor(self, now: float) -> int:
        """Return the replicas that the calendar asks for."""
        return max((replicas for begin, end, replicas in self.calendar if begin <= now < end), default=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolTimings:
    """How long replicas take to start and to stop, and how many GPUs are kept free by placeholders."""

    load_seconds: float
    """From the start of a replica on a free GPU until it is ready."""
    node_seconds: float
    """Until a new node with a GPU is there."""
    placeholders: int
    drain_seconds: float


@dataclass(slots=True, eq=False)
class Replica:
    """A model server; times are seconds of the simulation."""

    ready_at: float
    prefills_until: float = 0.0
    decoding: int = 0
    running: int = 0
    killed_at: float = math.inf


@dataclass(slots=True)
class SimulationResult:
    """The answers of a run and the sizes of the pool; times are seconds of the simulation."""

    first_tokens: list[tuple[float, float]] = field(default_factory=list)
    """(time of the question, seconds to the first token)"""
    turned_away: list[float] = field(default_factory=list)
    without_model: list[float] = field(default_factory=list)
    lost_answers: int = 0
    sizes: list[tuple[float, int]] = field(default_factory=list)
    """(time, desired replicas), at each change"""


class Simulation:
    """One run; `rate(t)` is the questions per second at second `t`, whose arrivals are a Poisson process."""

    def __init__(
        self,
        profile: Profile,
        policy: ScalingPolicy,
        timings: PoolTimings,
        rate: Callable[[float], float],
        *,
        target_seconds: float,
        seed: int = 1,
    ) -> None:
        self._policy, self._timings, self._rate = policy, timings, rate
        self._size = AnswerSize()
        self._prefill_seconds = self._size.prompt_tokens / profile.speeds.prefill
        self._one_stream, self._all_streams = profile.speeds.one_stream, profile.speeds.all_streams
        self._most_running = profile.engine.max_num_seqs
        self._target_seconds = target_seconds
        self._random = random.Random(seed)  # noqa: S311  a reproducible day
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._event_numbers = count()
        self._replicas = [Replica(0.0) for _ in range(policy.min_replicas)]
        self._staying = self._replicas.copy()
        """Those that are not terminating."""
        self._ready = self._replicas.copy()
        """Those of them that have started."""
        self._queue: deque[float] = deque()
        self._without_slot: dict[str, deque[float]] = {
            "chatbot_rejected_questions_total": deque(),
            "chatbot_degraded_answers_total": deque(),
        }
        """The times, in the last minute, of questions that neither a slot nor the queue counts, by their metric."""
        self._placeholder_ready_at = [0.0] * timings.placeholders
        self._scraped_demand: float | None = None
        self._desired: deque[tuple[float, int]] = deque()
        """(time, replicas by the metrics alone) within the stabilization window."""
        self._changes: deque[tuple[float, int]] = deque()
        self.result = SimulationResult(sizes=[(0.0, policy.min_replicas)])

    def run(self, seconds: float) -> SimulationResult:
        """Simulate so many seconds."""
        self._schedule(0.0, self._ask)
        self._schedule(SYNC_SECONDS, self._scale)
        self._schedule(1.0, self._scrape)
        events = self._events
        while events and events[0][0] <= seconds:
            now, _, event = heappop(events)
            event(now)
        return self.result

    def _schedule(self, at: float, event: Callable[[float], None]) -> None:
        heappush(self._events, (at, next(self._event_numbers), event))

    # --- customers and the gateway -----------------------------------------------------------------------------------

    def _ask(self, now: float) -> None:
        self._schedule(now + self._random.expovariate(self._rate(now)), self._ask)
        if not self._ready:
            self._without_slot["chatbot_degraded_answers_total"].append(now)
            self.result.without_model.append(now)
            return
        if len(self._queue) > self._target_seconds * len(self._ready) / self._busy_seconds:
            self._without_slot["chatbot_rejected_questions_total"].append(now)
            self.result.turned_away.append(now)
            return
        self._queue.append(now)
        self._start_queued(now)

    def _look_who_is_ready(self, now: float) -> None:
        self._ready = [replica for replica in self._staying if replica.ready_at <= now]
        self._start_queued(now)

    @cached_property
    def _busy_seconds(self) -> float:
        """Seconds of a fully loaded replica that an answer takes."""
        return self._prefill_seconds + self._size.answer_tokens / self._all_streams

    def _start_queued(self, now: float) -> None:
        while self._queue:
            # Tuples, with the place before the replica: a key's function would be called millions of times.
            free = [
                (replica.prefills_until, replica.running, place, replica)
                for place, replica in enumerate(self._ready)
                if replica.running < self._most_running and replica.prefills_until - now < self._target_seconds
            ]
            if not free:
                return
            self._prefill(min(free)[-1], self._queue.popleft(), now)

    def _prefill(self, replica: Replica, asked_at: float, now: float) -> None:
        replica.running += 1
        slowdown = 1 + min(1.0, replica.decoding * self._one_stream / self._all_streams)
        replica.prefills_until = max(now, replica.prefills_until) + self._prefill_seconds * slowdown
        self._schedule(replica.prefills_until, lambda then: self._decode(replica, asked_at, then))

    def _decode(self, replica: Replica, asked_at: float, now: float) -> None:
        self.result.first_tokens.append((asked_at, now - asked_at))
        replica.decoding += 1
        tokens_per_second = min(self._one_stream, self._all_streams / replica.decoding)
        tokens = self._size.answer_tokens * self._random.uniform(0.5, 1.5)
        self._schedule(now + tokens / tokens_per_second, lambda then: self._end(replica, then))
        self._start_queued(now)

    def _end(self, replica: Replica, now: float) -> None:
        replica.decoding -= 1
        replica.running -= 1
        # After its grace period the pod was killed, and this answer with it.
        self.result.lost_answers += now > replica.killed_at
        self._start_queued(now)

    # --- Kubernetes --------------------------------------------------------------------------------------------------

    def _scrape(self, now: float) -> None:
        terms = {
            "chatbot_busy_slots": float(sum(r.running for r in self._replicas)),
            "chatbot_queued_answers": float(len(self._queue)),
        }
        for name, times in self._without_slot.items():
            while times and times[0] < now - 60:
                times.popleft()
            terms[name] = len(times) / 60 * self._policy.answer_seconds
        self._scraped_demand = sum(term for name, term in terms.items() if name in self._policy.metrics)
        self._schedule(now + SCRAPE_SECONDS, self._scrape)

    def _scale(self, now: float) -> None:
        self._schedule(now + SYNC_SECONDS, self._scale)
        size = self.result.sizes[-1][1]
        desired = size if self._scraped_demand is None else self._desired_replicas(self._scraped_demand, size)
        desired = max(desired, self._policy.floor(now))
        self._desired.append((now, desired))
        while self._desired[0][0] < now - self._policy.stabilization_seconds:
            self._desired.popleft()
        new = self._size_up(desired, size, now) if desired > size else self._size_down(size, now)
        if new != size:
            self._resize(size, new, now)

    def _desired_replicas(self, demand: float, size: int) -> int:
        if size == 0:
            return 1 if demand > 0 else 0  # KEDA activates the pool; the autoscaler counts from 1
        policy = self._policy
        if abs(demand / (policy.answers_per_replica * size) - 1) <= TOLERANCE:
            return size
        return min(policy.max_replicas, max(1, policy.min_replicas, math.ceil(demand / policy.answers_per_replica)))

    def _size_up(self, desired: int, size: int, now: float) -> int:
        policy = self._policy
        added = sum(change for at, change in self._changes if at > now - policy.up_period_seconds and change > 0)
        before = size - added
        limit = max(math.ceil(before * (1 + policy.up_percent / 100)), before + policy.up_pods)
        return max(size, min(desired, limit))

    def _size_down(self, size: int, now: float) -> int:
        stabilized = max(desired for _, desired in self._desired)
        period = self._policy.seconds_per_pod_down
        removed = sum(-change for at, change in self._changes if at > now - period and change < 0)
        return max(stabilized, size - (1 - removed)) if stabilized < size and removed < 1 else size

    def _resize(self, size: int, new: int, now: float) -> None:
        self._changes.append((now, new - size))
        self.result.sizes.append((now, new))
        for replica in self._staying[new:]:
            replica.killed_at = now + self._timings.drain_seconds
        del self._staying[new:]
        for _ in range(new - size):
            ready_at = now + self._timings.load_seconds + self.gpu_wait_seconds(now)
            self._staying.append(Replica(ready_at))
            self._schedule(ready_at, self._look_who_is_ready)
        self._look_who_is_ready(now)
        self._replicas = [r for r in self._replicas if r.running and r.killed_at < math.inf] + self._staying

    def gpu_wait_seconds(self, now: float) -> float:
        """Return how long a new replica waits for a GPU; the placeholder that it evicts then waits for a new node."""
        ready_at = self._placeholder_ready_at
        evicted = next((n for n, at in enumerate(ready_at) if at <= now), None)
        if evicted is None:
            return self._timings.node_seconds
        ready_at[evicted] = now + self._timings.node_seconds
        return 0.0
