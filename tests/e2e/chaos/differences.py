"""Compares what a customer has read of an answer with the history, the audit, the log and the bill. Pure."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from chatbot.audit import AuditKeys, Closed, Opened
from tests.e2e.events import SentEvent, notice_codes, text_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What the bank keeps of one answer: the messages of its conversation, its audit entries, and its replays."""

    messages: Sequence[Mapping[str, Any]] | None
    entries: Sequence[Opened | Closed]
    replays: Sequence[Sequence[SentEvent]]


def of_answer(events: Sequence[SentEvent], kept: Kept, *, tenant: str, keys: AuditKeys) -> Iterator[str]:
    """Yield how what is kept differs from the events that were read, the last of them included."""
    yield from _of_stream(events)
    yield from _of_history(events, kept.messages)
    yield from _of_audit(events, kept.entries, tenant=tenant, keys=keys)
    for n, replay in enumerate(kept.replays):
        if list(replay) != list(events):
            yield f"replica {n} replays {len(replay)} events, {len(events)} were read{_first_other(events, replay)}"


def _first_other(read: Sequence[SentEvent], replay: Sequence[SentEvent]) -> str:
    others = ((n, a, b) for n, (a, b) in enumerate(zip(read, replay, strict=False), 1) if a != b)
    return next((f": the event {n} was {a.data!r} and is {b.data!r}" for n, a, b in others), "")


def _of_stream(events: Sequence[SentEvent]) -> Iterator[str]:
    numbers = [int(event.id.rpartition(".")[2]) for event in events]
    if numbers != list(range(1, len(events) + 1)):
        yield f"the events have the numbers {numbers}"
    if sum(event.name in {"done", "error"} for event in events) != 1:
        yield f"{[event.name for event in events]} has not one end"


def _of_history(events: Sequence[SentEvent], messages: Sequence[Mapping[str, Any]] | None) -> Iterator[str]:
    if "history_unavailable" in notice_codes(events):  # and so the customer was told
        return
    mine = [message for message in messages or () if message.get("answer_id") == events[0].answer_id]
    if len(mine) != 1:
        yield f"the history has the answer {len(mine)} times"
        return
    (message,) = mine
    if message["text"] != text_of(events):
        yield f"the history has the text {message['text']!r}, {text_of(events)!r} was read"
    end, reason = events[-1], message.get("finish_reason")
    if end.name == "done" and reason != end.field("finish_reason"):
        yield f"the history says {reason}, {end.field('finish_reason')} was read"
    read = [msgspec.json.decode(event.data) for event in events if event.name == "citation"]
    has = message.get("citations", [])
    if has != read:
        yield f"the history has {len(has)} citations, {len(read)} were read"


def _of_audit(
    events: Sequence[SentEvent], entries: Sequence[Opened | Closed], *, tenant: str, keys: AuditKeys
) -> Iterator[str]:
    kinds = Counter(type(entry) for entry in entries)
    if kinds != {Opened: 1, Closed: 1}:
        yield f"the audit has {kinds[Opened]} openings and {kinds[Closed]} closings"
        return
    closed, end = closing_of(entries), events[-1]
    if closed.answer_hash != keys.answer_hash(tenant, text_of(events)):
        yield "the audit has another text than was read"
    if end.name == "error":
        recorded: tuple[object, object] = (closed.error, closed.finish_reason)
        if recorded != (end.field("code"), None):
            yield f"the audit says {recorded}, the error {end.field('code')} was read"
        return
    recorded = (closed.finish_reason, closed.grounded)
    read = (end.field("finish_reason"), end.field("grounded") or end.field("written"))
    if recorded != read:
        yield f"the audit says {recorded}, {read} was read"
    usage = msgspec.json.decode(end.data)["usage"]
    counted = {name: getattr(closed, name) for name in ("prompt_tokens", "answer_tokens", "thinking_tokens")}
    if counted != {name: usage[name] for name in counted}:
        yield f"the audit counts {counted}, {usage} was read"


def closing_of(entries: Sequence[Opened | Closed]) -> Closed:
    """Return the closing entry of an answer that has one."""
    return next(entry for entry in entries if isinstance(entry, Closed))


def cost_of(entries: Sequence[Opened | Closed]) -> int:
    """Return the tokens that an answer cost by its audit; an opening alone cost nothing yet."""
    return sum(e.prompt_tokens + e.answer_tokens + e.thinking_tokens for e in entries if isinstance(e, Closed))


def of_bill(spent: int, costs: Mapping[str, int]) -> str | None:
    """Return how a customer's bill differs from what their answers cost, by the answers' ids."""
    due = sum(costs.values())
    return None if spent == due else f"the bill has {spent} tokens, the answers cost {due} {dict(costs)}"
