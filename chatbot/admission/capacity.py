"""Adjust the number of slots to the endpoints' load, which is read once a second from vLLM's metrics.

Replicas share the endpoints without coordination. While requests wait inside vLLM, each replica gives up slots in
proportion to its share of the requests; while none wait, each adds a few. The configured number of slots is the upper
bound, and applies while no endpoint reports its load.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import anyio
import structlog

from chatbot.admission.fair_queue import Admission, AdmissionSettings
from chatbot.models import SERVING_GROUPS, Endpoint
from knowledge.model_connection import EndpointFailed

log = structlog.get_logger(__name__)

_RUNNING = "vllm:num_requests_running"
_WAITING = "vllm:num_requests_waiting"
_CACHE = "vllm:kv_cache_usage_perc"
# Contexts grow with their answers: above this share of the KV cache, vLLM may soon preempt running answers.
_CACHE_FULL = 0.95
# After this many consecutive polls without waiting requests, each poll adds an eighth of the slots. Growth is slow
# because answers that wait inside vLLM get no queue position.
_CALM_POLLS = 5
_GROWTH_DIVISOR = 8
_MOST_REQUESTS = 1e6


class LoadNotReported(Exception):
    """The metrics do not report the load."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointLoad:
    """The running and waiting requests of an endpoint, and the used share of its KV cache in [0, 1]."""

    running: int
    waiting: int
    cache: float = 0.0


def read_load(text: str) -> EndpointLoad:
    """Parse an endpoint's load from its metrics, in Prometheus's text format with one line per engine.

    Raises:
        LoadNotReported: the metrics are not from vLLM, or from an incompatible release.
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
    """Parse the value of a vLLM gauge.

    Raises:
        ValueError: the value is NaN, infinite, negative or implausibly large.
    """
    value = float(text)
    if not 0 <= value <= _MOST_REQUESTS:
        raise ValueError(text)
    return value


def slots_after(slots: int, loads: Sequence[EndpointLoad], *, busy: int, calm: int, most: int) -> int:
    """Return the new number of slots, at most `most`; `busy` is the number of taken slots.

    `calm` counts the consecutive polls without waiting requests, including this one.
    """
    if not loads:
        return most
    running = sum(load.running for load in loads)
    waiting = sum(load.waiting for load in loads)
    if waiting:
        own_share = min(1.0, busy / (running + waiting))
        return max(1, min(slots, busy) - math.ceil(waiting * own_share))
    if max(load.cache for load in loads) >= _CACHE_FULL:
        return max(1, min(slots, busy))
    if calm >= _CALM_POLLS:
        slots += max(1, slots // _GROWTH_DIVISOR)
    return min(most, slots)


class Capacity:
    """Polls the endpoints and sets the number of slots."""

    def __init__(
        self, members: Callable[[], Sequence[Endpoint]], admission: Admission, settings: AdmissionSettings
    ) -> None:
        self._members = members
        self._admission = admission
        self._settings = settings
        self._load_reported = True
        self._calm_polls = 0

    async def watch(self) -> None:
        """Poll every `poll_every` seconds until cancelled."""
        while True:
            await self.poll()
            await anyio.sleep(self._settings.poll_every)

    async def poll(self) -> None:
        """Read the load of the endpoints in use and set the number of slots."""
        members = self._in_use()
        loads: list[EndpointLoad] = []
        async with anyio.create_task_group() as tasks:
            for member in members:
                tasks.start_soon(self._read_load, member, loads)
        load_reported = len(loads) > 0
        if members and load_reported != self._load_reported:
            self._load_reported = load_reported
            event = "endpoint_metrics_available" if load_reported else "endpoint_metrics_unavailable"
            log.warning(event, slots=self._settings.slots)
        any_waiting = any(load.waiting for load in loads)
        self._calm_polls = self._calm_polls + 1 if load_reported and not any_waiting else 0
        self._admission.slots = slots_after(
            self._admission.slots, loads, busy=self._admission.busy, calm=self._calm_polls, most=self._settings.slots
        )

    def _in_use(self) -> list[Endpoint]:
        """Return the available endpoints of the first group that has any, except those known to lack vLLM's API."""
        for group in SERVING_GROUPS:
            available = [member for member in self._members() if member.group == group and member.available]
            if available:
                return [member for member in available if member.capabilities.tokenize or not member.checked]
        return []

    async def _read_load(self, member: Endpoint, loads: list[EndpointLoad]) -> None:
        """Add the endpoint's load to `loads`, if it reports its load in time."""
        try:
            until = anyio.current_time() + self._settings.poll_every
            text = await member.exchange("GET", "/metrics", until=until)
            loads.append(read_load(text.decode("utf-8", "replace")))
        except (EndpointFailed, LoadNotReported):
            return
