"""The same bytes again: a repetition of what is there, or of what is over, which may be wanted again."""

from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from ingest.bulk import SourceFile
from ingest.catalogue import Metadata, State, Upload, Version
from ingest.errors import DuplicateContent
from ingest.pipeline import activate
from ingest.services import Services
from tests.clock import Clock
from tests.ingest import samples
from tests.ingest.documents import LOAD, REQUEST, do_job, load_files, publish, receive, versions_found

pytestmark = pytest.mark.anyio

A, B, C = (samples.MARKDOWN.replace("2.35", rate).encode() for rate in ("2.35", "2.75", "3.15"))
TERMS = replace(REQUEST, document_id="terms")
AGAIN = replace(TERMS, again=True)
LATER = Metadata(effective_from=date(2027, 6, 1), effective_until=date(2027, 6, 30))


async def sent(services: Services, data: bytes, request: Upload) -> Version:
    return (await receive(services, data, request)).version


async def replaced(services: Services, clock: Clock) -> None:
    """Publish A, then B in its place."""
    for data in (A, B):
        await publish(services, data, document_id="terms")
        clock.now += 60


@pytest.mark.both_databases
async def test_a_promotion_that_is_over_comes_back_with_new_dates_as_a_draft(services: Services, clock: Clock) -> None:
    june = Metadata(effective_from=date(2026, 6, 1), effective_until=date(2026, 6, 30))
    await publish(services, A, document_id="terms", metadata=june)
    clock.now += 300 * 86_400
    with pytest.raises(DuplicateContent, match="again=true"):
        await sent(services, A, replace(TERMS, metadata=LATER))
    received = await receive(services, A, replace(AGAIN, metadata=LATER))
    draft = await do_job(services, received)
    assert (draft.key.version, draft.state) == (2, State.INDEXED)
    shown = await activate(draft.key, "lee", services)
    assert shown.visible_from is not None
    assert await versions_found(services, at=shown.visible_from) == {2}


async def test_a_replaced_text_sent_again_often_is_one_draft(services: Services, clock: Clock) -> None:
    await replaced(services, clock)
    drafts = [await sent(services, A, AGAIN) for _ in range(3)]
    assert {draft.key.version for draft in drafts} == {3}
    assert await versions_found(services, at=clock.now) == {2}


async def test_a_text_that_is_current_or_waits_is_the_same_version_again(services: Services, clock: Clock) -> None:
    first = await sent(services, A, AGAIN)
    await publish(services, A, document_id="terms")
    clock.now += 60
    assert (await sent(services, A, AGAIN)).key == first.key
    with pytest.raises(DuplicateContent, match=r"metadata or document id$") as refused:
        await sent(services, A, replace(AGAIN, metadata=LATER))
    assert refused.value.document_id == "terms"
    assert (await sent(services, A, replace(AGAIN, tenant="other"))).key.tenant == "other"


async def test_a_folder_with_former_versions_may_be_loaded_often(
    services: Services, clock: Clock, tmp_path: Path
) -> None:
    await replaced(services, clock)
    files = []
    for name, data in (("a.md", A), ("b.md", B)):
        (tmp_path / name).write_bytes(data)
        files.append(SourceFile(path=tmp_path / name, name=name, document_id="terms"))
    for _ in range(2):
        outcomes = [(outcome.reason, outcome.state) for outcome in await load_files(services, files)]
        assert outcomes == [(None, State.EXPIRED), (None, State.ACTIVE)]
        clock.now += 3600
    assert len(await services.catalogue.versions("hanbit", "terms")) == 2
    assert await versions_found(services, at=clock.now) == {2}


@pytest.mark.both_databases
async def test_a_changed_file_is_the_next_version_and_an_unchanged_one_or_a_copy_is_none(
    services: Services, tmp_path: Path
) -> None:
    loaded = []
    for name, data in (("a/terms.md", A), ("a/terms.md", A), ("a/terms.md", B), ("b/terms.md", B), ("b/terms.md", C)):
        (tmp_path / "terms.md").write_bytes(data)
        file = SourceFile(path=tmp_path / "terms.md", name=name)
        loaded += await load_files(services, [file], replace(LOAD, approver=None))
    passages = f"{loaded[0].passages} passages"
    assert [str(outcome) for outcome in loaded] == [
        f"a/terms.md: {passages}, new document",
        f"a/terms.md: {passages}, already loaded",
        f"a/terms.md: {passages}, version 2",
        f"b/terms.md: {passages}, already loaded",
        f"b/terms.md: {passages}, new document",
    ]
    keys = [outcome.key for outcome in loaded]
    assert keys[0] == keys[1]
    assert keys[2] == keys[3]
