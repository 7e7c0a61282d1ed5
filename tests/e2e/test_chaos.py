"""What `make chaos` stands on: a seed makes the same faults, and nothing that differs is overlooked."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chatbot.audit import AuditKeys, Closed, Opened
from chatbot.settings import Settings as ChatSettings
from tests.e2e.chaos.differences import Kept, cost_of, of_answer, of_bill
from tests.e2e.chaos.schedule import CHOICES, schedule
from tests.e2e.conftest import chat_environment
from tests.e2e.events import SentEvent

MODEL = {"LLM_URLS": "http://model:8000", "LLM_PROFILE": "scripted"}
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


def differences(events: Sequence[SentEvent], kept: Kept) -> list[str]:
    return list(of_answer(events, kept, tenant=TENANT, keys=KEYS))


def with_message(**changed: object) -> Kept:
    return replace(KEPT, messages=[{**MESSAGE, **changed}])


def closed_with(**changed: Any) -> Kept:
    fields = {name: getattr(CLOSED, name) for name in CLOSED.__struct_fields__}
    return replace(KEPT, entries=[OPENED, Closed(**{**fields, **changed})])


def test_a_replica_of_make_chaos_starts_with_nothing_but_what_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BANK_FILE")  # the tests' own, which a command has not
    for name, value in chat_environment(tmp_path / "key", "redis://nowhere", **MODEL).items():
        monkeypatch.setenv(name, value)
    assert ChatSettings().bank_file is not None


def test_a_seed_makes_the_same_faults_and_every_kind_of_them() -> None:
    assert schedule(7, 600) == schedule(7, 600)
    assert schedule(7, 600) != schedule(8, 600)
    assert set(schedule(7, 60)) <= set(schedule(7, 600)), "a longer run begins with the faults of a shorter one"
    made = {(fault.lane, fault.kind) for fault in schedule(7, 3600)}
    assert made == {(lane, choice.kind) for lane, choices in CHOICES.items() for choice in choices}


def test_what_is_kept_as_it_was_read_differs_in_nothing() -> None:
    assert differences(READ, KEPT) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda: replace(KEPT, messages=None), "0 times"),
        (lambda: replace(KEPT, messages=[MESSAGE, MESSAGE]), "2 times"),
        (lambda: with_message(text="연 3.1"), "the history has the text"),
        (lambda: with_message(finish_reason="cancelled"), "the history says cancelled"),
        (lambda: with_message(citations=[]), "0 citations"),
        (lambda: replace(KEPT, entries=[OPENED]), "0 closings"),
        (lambda: replace(KEPT, entries=[OPENED, CLOSED, CLOSED]), "2 closings"),
        (lambda: closed_with(answer_hash=KEYS.answer_hash(TENANT, "연 3.1")), "another text"),
        (lambda: closed_with(finish_reason="cancelled"), "the audit says"),
        (lambda: closed_with(grounded=False), "the audit says"),
        (lambda: closed_with(answer_tokens=8), "the audit counts"),
        (lambda: replace(KEPT, replays=[READ, READ[:-1]]), "replica 1 replays 4 events"),
    ],
)
def test_whatever_differs_is_told(change: Callable[[], Kept], told: str) -> None:
    (found,) = differences(READ, change())
    assert told in found


def test_events_that_lack_or_double_one_are_told() -> None:
    lacking, doubled = (*READ[:1], *READ[2:]), (*READ[:2], *READ[1:])
    for events in (lacking, doubled):
        assert any("numbers" in found for found in differences(events, KEPT))


def test_an_error_is_kept_as_the_error_that_was_read() -> None:
    error = SentEvent(id="a1.5", name="error", data=b'{"code": "model_unavailable"}')
    read = (*READ[:-1], error)
    kept = replace(closed_with(finish_reason=None, error="model_unavailable"), replays=[read, read])
    assert differences(read, kept) == []
    assert len(differences(read, replace(KEPT, replays=[read, read]))) == 1, "the audit says that it was answered"


def test_the_bill_is_what_the_answers_cost() -> None:
    costs = {"a1": cost_of(KEPT.entries), "a2": 50}
    assert of_bill(157, costs) is None
    for spent in (0, 107, 156, 158, 264):
        assert of_bill(spent, costs) is not None
