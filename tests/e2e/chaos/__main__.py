"""Breaks everything at random under thirty customers, and counts what they read that is not kept as they read it.

Two replicas of the chat API behind HAProxy, two scripted models, PostgreSQL, and a Redis with a replica that is
promoted at random. Replicas, models and stores are stopped, killed and slowed, the replicas' clocks set hours off.
In the end each answer that a customer read to its end must be in the history, in the audit, on the bill and in every
replica's replay exactly as it was read. What the runbook says is lost is not done: no replica ends while Redis is
away, and Redis forgets nothing within 12 s of a replica's end. The same seed makes the same faults.
Ctrl-C ends the run early and compares; twice, it only ends.
"""

import argparse
import asyncio
import random
import shutil
import signal
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
from tests.faketime import LIBRARY
from tests.postgres import programs
from tests.switch import PATHS

CUSTOMERS = 30


def main() -> int:
    """Return 0 where nothing differs, 1 where something does, 2 where a program is missing."""
    asked = argparse.ArgumentParser(prog="chaos", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    asked.add_argument("--minutes", type=float, default=30.0, help="how long faults are made (30)")
    asked.add_argument("--seed", type=int, default=None, help="of faults and customers; a new one if not given")
    asked.add_argument("--keep", type=Path, default=None, help="a new folder for logs and data, which stays")
    asked.add_argument("--show", action="store_true", help="print the faults of the seed and make none")
    options = asked.parse_args()
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    faults = schedule(seed, 60 * options.minutes)
    print(f"seed {seed}: {len(faults)} faults in {options.minutes:g} minutes", flush=True)
    if options.show:
        print(*faults, sep="\n")
        return 0
    missing = [] if shutil.which("haproxy", path=PATHS) else ["haproxy"]
    missing += [] if programs() else ["postgresql"]
    if missing:
        print(f"chaos needs {' and '.join(missing)} (scripts/test_parts installs them)", file=sys.stderr)
        return 2
    if LIBRARY is None:
        print("without libfaketime (apt-get install libfaketime) no clock is set", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        place = options.keep or Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        return asyncio.run(run(place, seed, 60 * options.minutes))


async def run(folder: Path, seed: int, seconds: float) -> int:
    """Start the bank, run the schedule under customers, compare and report."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop() -> None:
        print("ends early; once more to end without a comparison", flush=True)
        stopping.set()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)

    with opened_bank(folder) as bank:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop)
        readings, faults = await disturbed(bank, seed, seconds, stopping)
        print(f"compares {len(readings)} questions", flush=True)
        compared = await compare(bank, readings)
        compared.differences |= {f"drain {n}": [told] for n, told in enumerate(faults.never_ended, 1)}
        return report(seed, readings, faults.made, compared)


async def disturbed(bank: Bank, seed: int, seconds: float, stopping: asyncio.Event) -> tuple[list[Reading], Faults]:
    """Have customers talk while faults are made; return what was asked, once everybody has read to the end."""
    readings: list[Reading] = []
    faults = Faults(bank, lambda line: print(line, flush=True))
    began = time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        for n in range(CUSTOMERS):
            dice = random.Random(f"{seed} customer {n}")  # noqa: S311  the same customers again
            tasks.create_task(talk(bank.cluster.client, dice, readings, stopping))
        tasks.create_task(faults.make(schedule(seed, seconds), stopping))
        try:
            await asyncio.wait_for(stopping.wait(), seconds)
        except TimeoutError:
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
