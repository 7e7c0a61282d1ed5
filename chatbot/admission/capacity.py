"""How many answers the endpoints can take, heard from vLLM's own metrics once a second.

Replicas share the endpoints and need not know of each other: what waits inside vLLM is too much for all of them, so
each takes back its part of it; while nothing waits, each tries a few more. The settings' number is the bound, and what
is taken where no endpoint tells.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import anyio
import structlog

from chatbot.admission.fair_queue import Admission, AdmissionSettings
from chatbot.models import SERVING_GROUPS, EndpointFailed, Member

log = structlog.get_logger(__name__)

_RUNNING, _WAITING, _CACHE = "vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc"
# Contexts grow as answers do: above this, running answers are about to be thrown out again (preempted).
_CACHE_FULL = 0.95
# Once nothing has waited for so many looks, slots grow with each by this part of themselves: whoever starts too many
# makes everybody wait inside vLLM, where nobody is told.
_CALM = 5
_GROWTH = 8


class Untold(Exception):
    """The metrics do not say what we need."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointLoad:
    """What an endpoint says of itself: requests that run and wait in it, and how full its cache of contexts is."""

    running: int
    waiting: int
    cache: float = 0.0


def read_load(text: str) -> EndpointLoad:
    """Return what the metrics of an endpoint say (Prometheus' text; one line an engine).

    Raises:
        Untold: they are not vLLM's, or are of another release.
    """
    found: dict[str, list[float]] = {_RUNNING: [], _WAITING: [], _CACHE: []}
    try:
        for line in text.splitlines():
            name = line.partition("{")[0]
            if name in found:
                found[name].append(float(line.rpartition(" ")[2]))
    except ValueError as exc:
        raise Untold from exc
    if not found[_RUNNING] or not found[_WAITING]:
        raise Untold
    return EndpointLoad(
        running=round(sum(found[_RUNNING])),
        waiting=round(sum(found[_WAITING])),
        cache=max(found[_CACHE], default=0.0),
    )


def slots_after(slots: int, loads: Sequence[EndpointLoad], *, busy: int, calm: int, most: int) -> int:
    """Return how many slots there should be now, where there were `slots` of which `busy` are taken.

    `calm` is how many looks in a row, this one included, have found nothing waiting.
    """
    if not loads:
        return most
    running, waiting = sum(load.running for load in loads), sum(load.waiting for load in loads)
    if waiting:
        ours = min(1.0, busy / (running + waiting))
        return max(1, min(slots, busy) - math.ceil(waiting * ours))
    if max(load.cache for load in loads) >= _CACHE_FULL:
        return max(1, min(slots, busy))
    return min(most, slots + max(1, slots // _GROWTH)) if calm >= _CALM else min(most, slots)


class Capacity:
    """Looks at the endpoints and sets the slots."""

    def __init__(self, members: Sequence[Member], admission: Admission, settings: AdmissionSettings) -> None:
        self._members = members
        self._admission = admission
        self._settings = settings
        self._told = True
        self._calm = 0

    async def watch(self) -> None:
        """Look, for ever."""
        while True:
            await self.look()
            await anyio.sleep(self._settings.poll_every)

    async def look(self) -> None:
        """Ask the endpoints that are called now how busy they are, and set the slots."""
        members = self._called()
        loads: list[EndpointLoad] = []
        async with anyio.create_task_group() as tasks:
            for member in members:
                tasks.start_soon(self._ask, member, loads)
        if members and bool(loads) is not self._told:
            self._told = bool(loads)
            log.warning("capacity_told" if loads else "capacity_untold", slots=self._settings.slots)
        self._calm = self._calm + 1 if loads and not any(load.waiting for load in loads) else 0
        self._admission.slots = slots_after(
            self._admission.slots,
            loads,
            busy=self._admission.busy,
            calm=self._calm,
            most=self._settings.slots,
        )

    def _called(self) -> list[Member]:
        """Return the members of the first group that may be called."""
        for group in SERVING_GROUPS:
            able = [member for member in self._members if member.group == group and member.available]
            if able:
                return able
        return []

    async def _ask(self, member: Member, loads: list[EndpointLoad]) -> None:
        try:
            loads.append(read_load(await member.endpoint.metrics(within_seconds=self._settings.poll_every)))
        except (EndpointFailed, Untold):
            return
