"""A load while the index is away: it stops soon, says so once, and the same command goes on."""

import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from rich.console import Console

from ingest import job_runner
from ingest.bulk import SourceFile, print_summary
from ingest.bulk.load import MOST_UNAVAILABLE
from ingest.catalogue import Metadata, State
from ingest.services import Services
from knowledge.index import Index, IndexSettings, IndexUnavailable, open_index
from knowledge.passage import Passage
from knowledge.terms import Terms
from tests.ingest.conftest import Loaded
from tests.ingest.documents import LOAD, load_files

pytestmark = pytest.mark.anyio


def files(folder: Path, count: int) -> list[SourceFile]:
    return [
        SourceFile(path=path, name=path.name, document_id=path.stem, metadata=Metadata())
        for path in (folder / f"d{n:02}.md" for n in range(count))
        if path.write_text(f"# 예금 {path.stem}\n\n{path.stem} 예금의 이율은 연 1.0%입니다.\n", "utf-8")
    ]


async def test_a_load_stops_after_three_documents_without_the_index_and_continues_later(
    services: Services, loaded: Loaded, terms: Terms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_runner, "FIRST_WAIT_SECONDS", 0.0)
    given, at_once = files(tmp_path, 12), services.settings.model_copy(update={"at_once": 1})
    nowhere = IndexSettings.model_validate({"url": "http://127.0.0.1:1"})
    async with open_index(nowhere, loaded.embedder, terms, retry_start=True) as away:
        outcomes = await load_files(replace(services, index=away, settings=at_once), given)
    reasons = [outcome.reason for outcome in outcomes]
    assert reasons.count("unavailable") == MOST_UNAVAILABLE
    assert reasons.count("not_tried") == len(given) - MOST_UNAVAILABLE
    print_summary(outcomes, Console(file=(output := io.StringIO()), width=200), ZoneInfo("Asia/Seoul"))
    printed = output.getvalue()
    assert printed.count("127.0.0.1:1 cannot be reached: Connection refused") == MOST_UNAVAILABLE
    assert "stopped: a store or the embedder is unavailable; run the same command again to continue" in printed
    assert re.search(r"not tried\s+│ 9 ", printed)

    again = await load_files(services, given)
    assert {(outcome.state, outcome.reason) for outcome in again} == {(State.APPROVED, None)}


class Failing:
    """An index whose passages cannot be read so many times."""

    def __init__(self, index: Index, times: int) -> None:
        self._index = index
        self._left = times

    def __getattr__(self, name: str) -> Any:
        return getattr(self._index, name)

    async def passages(self, **name: Any) -> list[Passage]:
        if not self._left:
            return await self._index.passages(**name)
        self._left -= 1
        raise IndexUnavailable("it does not answer")


@pytest.mark.parametrize(
    ("times", "reasons"),
    [(9, ["unavailable"] * MOST_UNAVAILABLE + ["not_tried"] * 2), (1, ["unavailable", *[None] * 4])],
)
async def test_approvals_stop_after_three_documents_without_the_index(
    services: Services, tmp_path: Path, times: int, reasons: list[str | None]
) -> None:
    given = files(tmp_path, 5)
    await load_files(services, given, replace(LOAD, approver=None))
    away: Any = Failing(services.index, times)
    outcomes = await load_files(replace(services, index=away), given)
    assert [outcome.reason for outcome in outcomes] == reasons
    again = await load_files(services, given)
    assert {(outcome.state, outcome.reason) for outcome in again} == {(State.APPROVED, None)}
