"""Helpers for customers and for the events of an answer."""

from collections.abc import Callable, Iterable
from typing import Any
from uuid import uuid4

from anyio.abc import TaskGroup

from chatbot.deferred import DeferredSettings, DeferredWrites
from chatbot.events import Done, Event, FinishReason, Token, Usage
from chatbot.streams import AnswerId, AnswerLog, AnswerParts, Answers, AnswerSettings
from knowledge.identity import Principal
from telemetry.supervision import OnFailure, uncounted
from tests.constants import with_constants


def customer(sub: str = "lee", tenant: str | None = None) -> Principal:
    """Return a customer of `tenant`, by default of a new, unique one."""
    roles, groups = frozenset({"customer"}), frozenset({"customers"})
    return Principal(tenant=tenant or f"bank-{uuid4().hex}", sub=sub, roles=roles, groups=groups)


def done(reason: FinishReason = FinishReason.STOP, *, usage: Usage | None = None, grounded: bool = True) -> Done:
    return Done(finish_reason=reason, usage=usage or Usage(), grounded=grounded, limits=None)


def text_of(events: Iterable[Event]) -> str:
    """Return the answer's text."""
    return "".join(event.text for event in events if isinstance(event, Token))


async def length_of(log: AnswerLog, who: Principal, answer_id: AnswerId) -> tuple[int, bool]:
    """Return the number of events in a log, and whether it has ended."""
    events, lease_left = await log.touch(who, answer_id, "")
    return events, lease_left is None


def answers_of(
    log: AnswerLog,
    tasks: TaskGroup,
    settings: AnswerSettings,
    *,
    deferred: DeferredWrites | None = None,
    on_taken: Callable[[Any], None] = lambda _: None,
    on_failure: OnFailure = uncounted,
    person: Callable[[str], str] = lambda _: "",
) -> Answers:
    """Return a process's `Answers`, which retries failed Redis writes twenty times a second."""
    if deferred is None:
        deferred = DeferredWrites(with_constants(DeferredSettings(), retry_seconds=0.05), on_failure=on_failure)
        tasks.start_soon(deferred.retry_forever)
    parts = AnswerParts(
        log=log,
        tasks=tasks,
        settings=settings,
        deferred=deferred,
        on_failure=on_failure,
        on_taken=on_taken,
        handoff_text=person,
    )
    return Answers.of(parts)
