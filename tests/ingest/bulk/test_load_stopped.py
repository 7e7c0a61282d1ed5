"""A load while the index is away: it stops soon, says so once, and the same command goes on."""

import io
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from rich.console import Console

from ingest import job_runner
from ingest.bulk import LoadOrder, LoadOutcome, SourceFile, load, print_summary
from ingest.bulk.load import MOST_UNAVAILABLE
from ingest.catalogue import Metadata, State
from ingest.services import Services
from knowledge.index import IndexSettings, open_index
from knowledge.terms import Terms
from tests.ingest.conftest import Loaded, NoDisplay

pytestmark = pytest.mark.anyio
STOPPED = (
    "stopped: a store or the embedder was unavailable for 3 documents in a row; run the same command again to continue"
)
ORDER = LoadOrder(tenant="hanbit", uploaded_by="kim", approver="lee")


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


async def test_a_load_stops_after_three_documents_in_a_row_without_the_index_and_goes_on_later(
    services: Services, loaded: Loaded, terms: Terms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_runner, "FIRST_WAIT_SECONDS", 0.0)
    given, at_once = files(tmp_path, 12), services.settings.model_copy(update={"at_once": 2})
    nowhere = IndexSettings.model_validate({"url": "http://127.0.0.1:1"})
    async with open_index(nowhere, loaded.embedder, terms, waits=True) as away:
        outcomes = await load(given, ORDER, replace(services, index=away, settings=at_once), NoDisplay())
    reasons = [outcome.reason for outcome in outcomes]
    assert reasons.count("unavailable") == MOST_UNAVAILABLE
    assert reasons.count("not_tried") == len(given) - MOST_UNAVAILABLE
    printed = summary(outcomes)
    assert printed.count("127.0.0.1:1 cannot be reached: Connection refused") == MOST_UNAVAILABLE
    assert STOPPED in printed
    assert re.search(r"not tried\s+│ 9 ", printed)

    again = await load(given, ORDER, services, NoDisplay())
    assert {(outcome.state, outcome.reason) for outcome in again} == {(State.APPROVED, None)}
