"""Asks the bank what it keeps of every answer, until that agrees with what was read or has had its time."""

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import anyio
import anyio.to_thread
import msgspec

from chatbot.audit import AuditKeys, Closed, Opened
from tests.e2e.chaos.bank import Bank, start_again
from tests.e2e.chaos.customers import Reading
from tests.e2e.chaos.differences import Kept, cost_of, of_answer, of_bill
from tests.e2e.conftest import TENANT
from tests.e2e.events import SentEvent, read_events

AT_ONCE = 6
SETTLE_SECONDS = 75.0
"""How long what is kept may differ after the last fault is healed. What waited for a store is written long before; what
a dead process had reserved is given back when its lease has ended, which lasts as long as the longest answer."""
ABANDONED_SECONDS = 150.0
"""How long after a start every opening that nobody closed is closed: two looks, a minute apart, at what is older than
any answer gets."""

Entries = dict[str, list[Opened | Closed]]
"""The entries of the audit, by answer."""


@dataclass(slots=True)
class Compared:
    """The differences, by the answer or the customer that they are of."""

    differences: dict[str, list[str]] = field(default_factory=dict)
    never_answered: int = 0
    """Questions that were refused until their customers gave up."""


async def compare(bank: Bank, readings: Sequence[Reading]) -> Compared:
    """Compare every answer that was read to its end, again and again while there are differences and time is left."""
    deadline: float | None = None  # after the first comparison, which takes minutes for thousands of questions
    restarted = False
    wanted = list(readings)
    while True:
        await _give_back_lapsed(bank)
        entries = await anyio.to_thread.run_sync(entries_of, bank)
        compared = Compared()
        differing = await _compare_answers(bank, wanted, entries, compared)
        _compare_bills(bank, readings, entries, compared)
        if not compared.differences:
            return compared
        deadline = deadline or time.monotonic() + SETTLE_SECONDS
        if time.monotonic() > deadline:
            if restarted or not any(is_unclosed(found) for found in entries.values()):
                return compared
            restarted, deadline = True, time.monotonic() + ABANDONED_SECONDS
            await _restart(bank)
        wanted = differing
        await anyio.sleep(1)


async def _give_back_lapsed(bank: Bank) -> None:
    """Have the ledger asked, as any customer's request does: it gives back what dead processes had reserved."""
    async with bank.cluster.client("somebody") as http:
        await http.get("/v1/conversations")


async def _restart(bank: Bank) -> None:
    """Start a replica anew, which closes the openings that nobody has closed."""
    replica = bank.cluster.replicas[0]
    await anyio.to_thread.run_sync(replica.stop)
    await anyio.to_thread.run_sync(start_again, replica)


def is_unclosed(entries: Sequence[Opened | Closed]) -> bool:
    """Return whether nothing says how an answer ended."""
    return not any(isinstance(entry, Closed) for entry in entries)


def entries_of(bank: Bank) -> Entries:
    """Return every entry of the audit."""
    by_answer: Entries = defaultdict(list)
    for body in bank.postgres.query("SELECT body FROM chatbot_audit").splitlines():
        entry = msgspec.json.decode(body, type=Opened | Closed)
        by_answer[entry.answer_id].append(entry)
    return by_answer


async def _compare_answers(
    bank: Bank, readings: Sequence[Reading], entries: Entries, compared: Compared
) -> list[Reading]:
    """Compare answers, some at once; return the questions of those that differ."""
    keys = AuditKeys(bank.cluster.environment["AUDIT_KEY"].encode())
    differing: list[Reading] = []
    places = anyio.CapacityLimiter(AT_ONCE)

    async def one(reading: Reading) -> None:
        async with places:
            kept = await kept_of(bank, reading, entries)
        found = list(of_answer(reading.events, kept, tenant=TENANT, keys=keys))
        if found:
            differing.append(reading)
            compared.differences[f"answer {reading.answer_id}"] = found

    async with anyio.create_task_group() as tasks:
        for reading in readings:
            if reading.ended:
                tasks.start_soon(one, reading)
            elif not (reading.refused or reading.events):
                compared.never_answered += 1
            elif not reading.refused:
                differing.append(reading)
                seen = f"{len(reading.events)} events were read, refusals on the way: {reading.statuses[-5:]}"
                compared.differences[f"question {reading.sub} {reading.key}"] = [f"it never ended: {seen}"]
    return differing


async def kept_of(bank: Bank, reading: Reading, entries: Entries) -> Kept:
    """Return what history, audit and log have of an answer; nothing of the history where it cannot be asked."""
    async with bank.cluster.client(reading.sub) as http:
        reply = await http.get(f"/v1/conversations/{reading.conversation_id}")
    replays = [await replay(bank, reading, replica.url) for replica in bank.cluster.replicas]
    messages = reply.json()["messages"] if reply.status_code == 200 else None
    return Kept(messages=messages, entries=entries.get(reading.answer_id, []), replays=replays)


async def replay(bank: Bank, reading: Reading, url: str) -> list[SentEvent]:
    """Return the events of an answer as a replica sends them to who reads it from the beginning."""
    async with (
        bank.cluster.client(reading.sub, url=url) as http,
        http.stream("GET", f"/v1/answers/{reading.answer_id}/events") as response,
    ):
        return [event async for event in read_events(response)] if response.status_code == 200 else []


def holds_its_key(closed: Closed) -> bool:
    """Return whether an answer neither failed nor lost its reader: who asks with its key again must have joined it."""
    return closed.finish_reason not in {None, "cancelled"}


def _compare_bills(bank: Bank, readings: Sequence[Reading], entries: Entries, compared: Compared) -> None:
    """Compare what each customer was charged with what their answers cost, and count answers that nobody asked for."""
    answered: defaultdict[str, dict[str, Sequence[Opened | Closed]]] = defaultdict(dict)
    for answer_id, found in entries.items():
        for entry in found:
            if isinstance(entry, Opened):
                answered[entry.sub][answer_id] = found
    read: defaultdict[str, list[Reading]] = defaultdict(list)
    for reading in readings:
        read[reading.sub].append(reading)
    for sub, asked in read.items():
        if not all(reading.ended or reading.refused or not reading.events for reading in asked):
            continue  # told already
        costs = {answer_id: cost_of(found) for answer_id, found in answered[sub].items()}
        known = {reading.answer_id for reading in asked}
        again = [
            f"the key of a question was answered once more: {answer_id}"
            for answer_id, of_it in answered[sub].items()
            if answer_id not in known and any(isinstance(e, Closed) and holds_its_key(e) for e in of_it)
        ]
        wrong = of_bill(bank.cluster.spent_today(sub), costs)
        if wrong or again:
            compared.differences[f"customer {sub}"] = [*again, *([wrong] if wrong else [])]
