"""Which faults are made when: a function of the seed. Pure."""

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

Lane = Literal["replica", "redis", "sql", "index", "model", "clock"]
Kind = str
"""One of those of `CHOICES`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What is done to which of two at which second of the run, and for how many seconds."""

    at: float
    lane: Lane
    kind: Kind
    victim: int
    seconds: float

    def __str__(self) -> str:
        whom = self.lane if self.lane in {"redis", "sql"} else f"{self.lane} {self.victim}"
        return f"{self.at:7.1f} s  {whom}: {self.kind}, {self.seconds:.1f} s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A kind of fault, how often it is chosen, and the least and the most seconds that it lasts."""

    kind: Kind
    weight: int
    least: float
    most: float


GAPS: Mapping[Lane, float] = {"replica": 12.0, "redis": 15.0, "sql": 20.0, "index": 25.0, "model": 10.0, "clock": 20.0}
"""The mean seconds between the end of one fault and the next in its lane."""
CHOICES: Mapping[Lane, tuple[Choice, ...]] = {
    "replica": (
        Choice(kind="stall", weight=3, least=0.3, most=6),
        Choice(kind="kill", weight=3, least=0.5, most=3),
        Choice(kind="drain", weight=2, least=0.5, most=2),
    ),
    # `forget` is by how much the replica that is promoted lags, `promote` and `demote` how long nobody leads.
    "redis": (
        Choice(kind="stall", weight=4, least=0.2, most=3),
        Choice(kind="demote", weight=2, least=0.1, most=1),
        Choice(kind="promote", weight=2, least=0.1, most=3),
        Choice(kind="forget", weight=2, least=0.2, most=2),
        Choice(kind="restart", weight=2, least=0.1, most=2),
        Choice(kind="long stall", weight=1, least=11, most=14),
    ),
    "sql": (
        Choice(kind="stall", weight=2, least=0.5, most=6),
        Choice(kind="lock", weight=2, least=0.5, most=4),
    ),
    "index": (Choice(kind="away", weight=1, least=0.3, most=3),),
    "model": (
        Choice(kind="stall", weight=2, least=0.5, most=5),
        Choice(kind="slow", weight=2, least=2, most=6),
        Choice(kind="kill", weight=2, least=0.5, most=3),
    ),
    "clock": (
        Choice(kind="ahead", weight=1, least=1, most=10),
        Choice(kind="behind", weight=1, least=1, most=10),
    ),
}
LOSES: frozenset[Kind] = frozenset({"demote", "promote", "forget", "restart"})
"""After which a Redis may lack its last moments: what only the process knows that is just ended."""


def schedule(seed: int, seconds: float) -> tuple[Fault, ...]:
    """Return the faults of a run, the earliest first; the same seed gives the same, a longer run more of them."""
    return tuple(sorted((fault for lane in GAPS for fault in _lane(seed, lane, seconds)), key=lambda fault: fault.at))


def _lane(seed: int, lane: Lane, seconds: float) -> Iterator[Fault]:
    dice = random.Random(f"{seed} {lane}")  # noqa: S311  a schedule that can be run again
    gap, choices = GAPS[lane], CHOICES[lane]
    at = dice.uniform(1, gap)
    while at < seconds:
        (chosen,) = dice.choices(choices, weights=[choice.weight for choice in choices])
        lasts = dice.uniform(chosen.least, chosen.most)
        yield Fault(at=round(at, 1), lane=lane, kind=chosen.kind, victim=dice.randrange(2), seconds=round(lasts, 2))
        at += lasts + dice.uniform(0.5, 1.5) * gap
