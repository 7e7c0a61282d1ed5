"""The number of slots, which follows the load that vLLM's metrics report once a second.

Replicas share the endpoints without knowing of each other: what waits inside vLLM is too much for all of them together,
so each gives up slots in proportion to its own part of it; while nothing waits, each adds a few. The setting is the
upper bound, and the number of slots where no endpoint reports its load.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import anyio
import structlog

from chatbot.admission.fair_queue import Admission, AdmissionSettings
from chatbot.models import SERVING_GROUPS, Member
from knowledge.model_connection import EndpointFailed

log = structlog.get_logger(__name__)

_RUNNING, _WAITING, _CACHE = "vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc"
# Contexts grow with their answers: above this share of the KV cache vLLM is about to preempt running answers.
_CACHE_FULL = 0.95
# After this many polls in a row without anything waiting, each further one adds an eighth of the slots. Slowly: answers
# that wait inside vLLM are told no position.
_CALM_POLLS = 5
_GROWTH_DIVISOR = 8
_MOST_REQUESTS = 1e6


class LoadNotReported(Exception):
    """The metrics do not contain the load."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointLoad:
    """The requests that run and wait in an endpoint, and the share of its KV cache in use, in [0, 1]."""

    running: int
    waiting: int
    cache: float = 0.0


def read_load(text: str) -> EndpointLoad:
    """Return the load that an endpoint's metrics report, in Prometheus' text format with one line per engine.

    Raises:
        LoadNotReported: the metrics are not vLLM's, or those of another release.
    """
    values: dict[str, list[float]] = {_RUNNING: [], _WAITING: [], _CACHE: []}
    try:
        for line in text.splitlines():
            name = line.partition("{")[0]
            if name in values:
                values[name].append(_gauge(line.rpartition(" ")[2]))
    except ValueError as exc:
        raise LoadNotReported from exc
    if not values[_RUNNING] or not values[_WAITING]:
        raise LoadNotReported
    return EndpointLoad(
        running=round(sum(values[_RUNNING])),
        waiting=round(sum(values[_WAITING])),
        cache=max(values[_CACHE], default=0.0),
    )


def _gauge(text: str) -> float:
    """Return the value of a gauge of vLLM's.

    Raises:
        ValueError: it is no number of requests and no share: NaN, infinite, negative or absurd.
    """
    value = float(text)
    if not 0 <= value <= _MOST_REQUESTS:
        raise ValueError(text)
    return value


def slots_after(slots: int, loads: Sequence[EndpointLoad], *, busy: int, calm: int, most: int) -> int:
    """Return the new number of slots, where there were `slots`, of which `busy` are taken, and `most` is the bound.

    `calm` counts the polls in a row, this one included, that found nothing waiting.
    """
    if not loads:
        return most
    running, waiting = sum(load.running for load in loads), sum(load.waiting for load in loads)
    if waiting:
        own_share = min(1.0, busy / (running + waiting))
        return max(1, min(slots, busy) - math.ceil(waiting * own_share))
    if max(load.cache for load in loads) >= _CACHE_FULL:
        return max(1, min(slots, busy))
    return min(most, slots + max(1, slots // _GROWTH_DIVISOR)) if calm >= _CALM_POLLS else min(most, slots)


class Capacity:
    """Polls the endpoints and sets the number of slots."""

    def __init__(
        self, members: Callable[[], Sequence[Member]], admission: Admission, settings: AdmissionSettings
    ) -> None:
        self._members = members
        self._admission = admission
        self._settings = settings
        self._reported = True
        self._calm = 0

    async def watch(self) -> None:
        """Poll every `poll_every` seconds, for ever."""
        while True:
            await self.poll()
            await anyio.sleep(self._settings.poll_every)

    async def poll(self) -> None:
        """Read the load of the endpoints in use, and set the number of slots."""
        members = self._in_use()
        loads: list[EndpointLoad] = []
        async with anyio.create_task_group() as tasks:
            for member in members:
                tasks.start_soon(self._read_load, member, loads)
        if members and bool(loads) is not self._reported:
            self._reported = bool(loads)
            log.warning(
                "endpoint_metrics_available" if loads else "endpoint_metrics_unavailable", slots=self._settings.slots
            )
        self._calm = self._calm + 1 if loads and not any(load.waiting for load in loads) else 0
        self._admission.slots = slots_after(
            self._admission.slots,
            loads,
            busy=self._admission.busy,
            calm=self._calm,
            most=self._settings.slots,
        )

    def _in_use(self) -> list[Member]:
        """Return the available members of the first group that has some, as far as they may have vLLM's metrics."""
        for group in SERVING_GROUPS:
            available = [member for member in self._members() if member.group == group and member.available]
            if available:
                return [member for member in available if member.able.tokenize or not member.checked]
        return []

    async def _read_load(self, member: Member, loads: list[EndpointLoad]) -> None:
        try:
            until = anyio.current_time() + self._settings.poll_every
            text = await member.endpoint.exchange("GET", "/metrics", until=until)
            loads.append(read_load(text.decode("utf-8", "replace")))
        except (EndpointFailed, LoadNotReported):
            return
