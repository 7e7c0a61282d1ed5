"""What `make chaos` stands on: a seed makes the same faults, and nothing that differs is overlooked."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from chatbot.audit import AuditKeys, Closed, Opened
from tests.e2e.chaos.differences import Kept, cost_of, of_answer, of_bill
from tests.e2e.chaos.schedule import schedule
from tests.e2e.events import SentEvent

TENANT, KEYS = "hanbit", AuditKeys(b"a key of sixteen")
USAGE = {"prompt_tokens": 100, "cached_tokens": 0, "answer_tokens": 7, "thinking_tokens": 0}
DONE = {"finish_reason": "stop", "usage": USAGE, "grounded": True, "written": False, "limits": {"limit_tokens": 1000}}
CITATION = {"n": 1, "start": 0, "end": 4}
EVENTS: list[tuple[str, dict[str, Any]]] = [
    ("accepted", {"conversation_id": "c1"}),
    ("token", {"text": "연 "}),
    ("token", {"text": "3.1%"}),
    ("citation", CITATION),
    ("done", DONE),
]
READ = tuple(
    SentEvent(id=f"a1.{n}", name=name, data=json.dumps(data).encode()) for n, (name, data) in enumerate(EVENTS, 1)
)
MESSAGE: dict[str, Any] = {"answer_id": "a1", "text": "연 3.1%", "finish_reason": "stop", "citations": [CITATION]}
ROW: dict[str, Any] = {"writer": "w", "sequence": 1, "answer_id": "a1", "tenant": TENANT, "at": 1.0}
OPENED = Opened(
    **ROW, sub="lee", conversation_id="c1", question_hash="", passages=(), groups=(), as_of=1.0, model="m",
    prompt_version="p", index_version="i", embedder="e", sampling="", grounding="written",
)  # fmt: skip
CLOSED = Closed(
    **ROW, prompt_tokens=100, cached_tokens=0, answer_tokens=7, finish_reason="stop", error=None, grounded=True,
    answer_hash=KEYS.answer_hash(TENANT, "연 3.1%"),
)  # fmt: skip
KEPT = Kept(messages=[{"answer_id": None, "text": "?"}, MESSAGE], entries=[OPENED, CLOSED], replays=[READ, READ])

FAILED = (*READ[:-1], SentEvent(id="a1.5", name="error", data=b'{"code": "model_unavailable"}'))


def with_message(**changed: object) -> Kept:
    return replace(KEPT, messages=[{**MESSAGE, **changed}])


def closed_with(**changed: Any) -> Kept:
    fields = {name: getattr(CLOSED, name) for name in CLOSED.__struct_fields__}
    return replace(KEPT, entries=[OPENED, Closed(**{**fields, **changed})])


def test_a_seed_makes_the_same_faults() -> None:
    assert schedule(7, 600) == schedule(7, 600) != schedule(8, 600)


@pytest.mark.parametrize(
    ("read", "kept", "reported"),
    [
        (READ, KEPT, ""),
        (READ, replace(KEPT, messages=None), "0 times"),
        (READ, with_message(text="연 3.1"), "the history has the text"),
        (READ, with_message(citations=[]), "0 citations"),
        (READ, replace(KEPT, entries=[OPENED]), "0 closings"),
        (READ, closed_with(answer_hash=KEYS.answer_hash(TENANT, "연 3.1")), "another text"),
        (READ, closed_with(finish_reason="cancelled"), "the audit says"),
        (READ, closed_with(answer_tokens=8), "the audit counts"),
        (READ, replace(KEPT, replays=[READ, READ[:-1]]), "replica 1 replays 4 events"),
        ((*READ[:2], *READ[1:]), KEPT, "numbers"),
        (FAILED, replace(closed_with(finish_reason=None, error="model_unavailable"), replays=[FAILED]), ""),
        (FAILED, replace(KEPT, replays=[FAILED]), "the audit says"),
    ],
)
def test_a_difference_between_kept_and_read_is_reported(read: Sequence[SentEvent], kept: Kept, reported: str) -> None:
    found = list(of_answer(read, kept, tenant=TENANT, keys=KEYS))
    assert bool(found) == bool(reported)
    assert reported in "".join(found)


def test_the_bill_is_what_the_answers_cost() -> None:
    costs = {"a1": cost_of(KEPT.entries), "a2": 50}
    assert [of_bill(spent, costs) is None for spent in (157, 156, 158)] == [True, False, False]
