"""A load while the index is away: it stops soon, says so once, and the same command goes on."""

import io
import re
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from rich.console import Console

from ingest import job_runner
from ingest.bulk import LoadOutcome, SourceFile, print_summary
from ingest.bulk.load import MOST_UNAVAILABLE
from ingest.catalogue import Metadata, State
from ingest.services import Services
from knowledge.index import Index, IndexSettings, IndexUnavailable, open_index
from knowledge.terms import Terms
from tests.ingest.conftest import Loaded
from tests.ingest.documents import LOAD, load_files

pytestmark = pytest.mark.anyio
STOPPED = "stopped: a store or the embedder is unavailable; run the same command again to continue"


def files(folder: Path, count: int) -> list[SourceFile]:
    return [
        SourceFile(path=path, name=path.name, document_id=path.stem, metadata=Metadata())
        for path in (folder / f"d{n:02}.md" for n in range(count))
        if path.write_text(f"# 예금 {path.stem}\n\n{path.stem} 예금의 이율은 연 1.0%입니다.\n", "utf-8")
    ]


def summary(outcomes: Sequence[LoadOutcome]) -> str:
    printed = io.StringIO()
    print_summary(outcomes, Console(file=printed, width=200), ZoneInfo("Asia/Seoul"))
    return printed.getvalue()


def no_index(loaded: Loaded, terms: Terms) -> AbstractAsyncContextManager[Index]:
    nowhere = IndexSettings.model_validate({"url": "http://127.0.0.1:1"})
    return open_index(nowhere, loaded.embedder, terms, retry_start=True)


def assert_stopped(outcomes: Sequence[LoadOutcome]) -> None:
    reasons = [outcome.reason for outcome in outcomes]
    assert reasons == ["unavailable"] * MOST_UNAVAILABLE + ["not_tried"] * (len(outcomes) - MOST_UNAVAILABLE)
    assert STOPPED in summary(outcomes)


async def test_a_load_stops_after_three_documents_in_a_row_without_the_index_and_goes_on_later(
    services: Services, loaded: Loaded, terms: Terms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_runner, "FIRST_WAIT_SECONDS", 0.0)
    given, at_once = files(tmp_path, 12), services.settings.model_copy(update={"at_once": 2})
    async with no_index(loaded, terms) as away:
        outcomes = await load_files(replace(services, index=away, settings=at_once), given)
    reasons = [outcome.reason for outcome in outcomes]
    assert reasons.count("unavailable") == MOST_UNAVAILABLE
    assert reasons.count("not_tried") == len(given) - MOST_UNAVAILABLE
    printed = summary(outcomes)
    assert printed.count("127.0.0.1:1 cannot be reached: Connection refused") == MOST_UNAVAILABLE
    assert STOPPED in printed
    assert re.search(r"not tried\s+│ 9 ", printed)

    again = await load_files(services, given)
    assert {(outcome.state, outcome.reason) for outcome in again} == {(State.APPROVED, None)}


class Failing:
    """An index of which some methods fail, so many times."""

    def __init__(self, index: Index, *methods: str, times: int) -> None:
        self._index = index
        self._methods = methods
        self._left = times

    def __getattr__(self, name: str) -> Any:
        if name not in self._methods or not self._left:
            return getattr(self._index, name)

        async def fail(*_args: object, **_kwargs: object) -> None:
            self._left -= 1
            raise IndexUnavailable("it does not answer")

        return fail


async def test_approvals_stop_after_three_documents_without_the_index_and_go_on_later(
    services: Services, tmp_path: Path
) -> None:
    given = files(tmp_path, 6)
    await load_files(services, given, replace(LOAD, approver=None))
    away: Any = Failing(services.index, "passages", times=9)
    assert_stopped(await load_files(replace(services, index=away), given))
    again = await load_files(services, given)
    assert {(outcome.state, outcome.reason) for outcome in again} == {(State.APPROVED, None)}


async def test_one_document_that_meets_a_moment_without_the_index_stops_no_other(
    services: Services, tmp_path: Path
) -> None:
    given = files(tmp_path, 3)
    await load_files(services, given, replace(LOAD, approver=None))
    away: Any = Failing(services.index, "passages", times=1)
    outcomes = await load_files(replace(services, index=away), given)
    assert [outcome.reason for outcome in outcomes] == ["unavailable", None, None]
