"""Breaks everything at random under thirty customers, and counts what they read that is not kept as they read it.

Two replicas of the chat API behind HAProxy, two scripted models, PostgreSQL, and a Redis with a replica that is
promoted at random. Replicas, models and stores are stopped, killed and slowed, the replicas' clocks set hours off.
In the end each answer that a customer read to its end must be in the history, in the audit, on the bill and in every
replica's replay exactly as it was read. What the runbook says is lost is not done: no replica ends while Redis is
away, and Redis forgets nothing within 12 s of a replica's end. The same seed makes the same faults.
"""

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.e2e.chaos.bank import Bank, opened_bank
from tests.e2e.chaos.comparison import Compared, compare
from tests.e2e.chaos.customers import PATIENCE, Reading, talk
from tests.e2e.chaos.faults import Faults
from tests.e2e.chaos.schedule import schedule
from tests.e2e.faketime import LIBRARY
from tests.e2e.switch import PATHS
from tests.postgres import programs

CUSTOMERS = 30


def main() -> int:
    """Return 0 where nothing differs, 1 where something does, 2 where a program is missing."""
    asked = argparse.ArgumentParser(prog="chaos", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    asked.add_argument("--minutes", type=float, default=30.0, help="how long faults are made (30)")
    asked.add_argument("--seed", type=int, default=None, help="of faults and customers; a new one if not given")
    options = asked.parse_args()
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    print(f"seed {seed}: {len(schedule(seed, 60 * options.minutes))} faults in {options.minutes:g} minutes", flush=True)
    if not (shutil.which("haproxy", path=PATHS) and programs() and LIBRARY):
        print("chaos needs haproxy, postgresql and libfaketime (scripts/test_parts installs them)", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(run(Path(folder), seed, 60 * options.minutes))


async def run(folder: Path, seed: int, seconds: float) -> int:
    """Start the bank, run the schedule under customers, compare and report."""
    with opened_bank(folder) as bank:
        readings, faults = await disturbed(bank, seed, seconds)
        print(f"compares {len(readings)} questions", flush=True)
        compared = await compare(bank, readings)
        compared.differences |= {f"drain {n}": [sentence] for n, sentence in enumerate(faults.never_ended, 1)}
        return report(seed, readings, faults.made, compared)


async def disturbed(bank: Bank, seed: int, seconds: float) -> tuple[list[Reading], Faults]:
    """Have customers talk while faults are made; return what was asked, once everybody has read to the end."""
    readings, stopping = list[Reading](), asyncio.Event()
    faults = Faults(bank, lambda line: print(line, flush=True))
    began = time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        for n in range(CUSTOMERS):
            dice = random.Random(f"{seed} customer {n}")  # noqa: S311  the same customers again
            tasks.create_task(talk(bank.cluster.client, dice, readings, stopping))
        tasks.create_task(faults.make(schedule(seed, seconds), stopping))
        await asyncio.sleep(seconds)
        stopping.set()
        print(
            f"{time.monotonic() - began:7.1f} s  heals; customers read to the end, at most {PATIENCE:.0f} s", flush=True
        )
    return readings, faults


def report(seed: int, readings: Sequence[Reading], made: int, compared: Compared) -> int:
    """Print how the questions ended and every difference; return the exit status."""
    ends = Counter(
        str(reading.events[-1].field("finish_reason" if reading.events[-1].name == "done" else "code"))
        for reading in readings
        if reading.ended
    )
    read = sum(ends.values())
    print(f"{made} faults; {len(readings)} questions, {read} answers read to the end: {dict(ends.most_common())}")
    print(f"never answered within {PATIENCE:.0f} s: {compared.never_answered}")
    print(f"refused for good: {Counter(reading.refused for reading in readings if reading.refused) or 0}")
    refusals = Counter(status for reading in readings for status in reading.statuses)
    print(f"refusals that were tried again, by status: {dict(refusals.most_common())}")
    for of, found in compared.differences.items():
        print(f"DIFFERENCE {of}")
        for difference in found:
            print(f"  {difference}")
    print(f"{len(compared.differences)} unexplained differences; seed {seed}", flush=True)
    return 1 if compared.differences or not read else 0


if __name__ == "__main__":
    sys.exit(main())
