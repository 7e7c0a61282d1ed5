"""Access to passages: the filter against a plain predicate, and no search in the tree without the filter."""

import ast
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qdrant_client import QdrantClient, models

import knowledge
from knowledge.access import Access
from knowledge.index import Index, visible_filter
from knowledge.passage import Passage
from tests.knowledge.conftest import BANK, CUSTOMER, numbered

ROOT = Path(str(knowledge.__file__)).parent.parent
PACKAGES = ("chatbot", "ingest", "edge", "knowledge", "llm_server", "telemetry", "evals")
INDEX = ROOT / "knowledge" / "index" / "index.py"
READING = {"query_points", "query_batch_points", "query_points_groups", "search_matrix_pairs", "scroll", "retrieve"}
SEEING_SCORES = {"search", "passage"}

TENANTS = st.sampled_from(["hanbit", "hanbit2", "HANBIT", ""])
GROUPS = st.sampled_from(["customers", "staff", "vip", "customers ", ""])
INSTANTS = st.sampled_from([0.0, 99.999, 100.0, 100.001, 200.0, 1_790_000_000.5])
PASSAGES = st.lists(
    st.builds(
        lambda tenant, readers, since, until: replace(
            BANK, tenant=tenant, readers=tuple(readers), visible_from=since, visible_until=until
        ),
        TENANTS,
        st.lists(GROUPS, max_size=3),
        st.none() | INSTANTS,
        st.none() | INSTANTS,
    ),
    min_size=1,
    max_size=12,
)
ACCESS = st.builds(
    lambda tenant, groups, as_of: Access(tenant=tenant, groups=groups, as_of=as_of),
    TENANTS,
    st.frozensets(GROUPS, max_size=3),
    INSTANTS,
)


def may_read(passage: Passage, access: Access) -> bool:
    """The rule in plain words: same tenant, a common group, approved, begun and not ended."""
    return (
        passage.tenant == access.tenant
        and not access.groups.isdisjoint(passage.readers)
        and passage.visible_from is not None
        and passage.visible_from <= access.as_of
        and (passage.visible_until is None or access.as_of < passage.visible_until)
    )


@settings(deadline=None, max_examples=200)
@given(PASSAGES, ACCESS)
def test_the_filter_passes_exactly_the_readable_passages(passages: list[Passage], access: Access) -> None:
    client = QdrantClient(":memory:")
    client.create_collection("kb", vectors_config={})
    client.upsert(
        "kb",
        [
            models.PointStruct(id=n, vector={}, payload=msgspec.to_builtins(passage))
            for n, passage in enumerate(passages)
        ],
    )
    points, _ = client.scroll("kb", scroll_filter=visible_filter(access), limit=100)
    assert {point.id for point in points} == {n for n, passage in enumerate(passages) if may_read(passage, access)}


@pytest.mark.anyio
async def test_a_search_returns_nothing_without_the_right_tenant_group_or_time(index: Index) -> None:
    await index.upsert(numbered("정기예금 중도해지 이율"))
    assert await index.search("중도해지 이율", access=CUSTOMER, limit=5)
    for access in (
        replace(CUSTOMER, tenant="other"),
        replace(CUSTOMER, groups=frozenset()),
        replace(CUSTOMER, groups=frozenset({"staff"})),
        replace(CUSTOMER, as_of=99.0),
    ):
        assert await index.search("중도해지 이율", access=access, limit=5) == []
        assert await index.passage(document_id="deposit", version=1, n=0, access=access) is None


def calls(source: str) -> Iterator[tuple[int, str]]:
    """Yield line and name of every attribute that reads points, called or passed on."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr in READING:
            yield node.lineno, node.attr


def test_only_the_index_asks_qdrant_for_points() -> None:
    elsewhere = [
        f"{path.relative_to(ROOT)}:{line} {name}"
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if path != INDEX
        for line, name in calls(path.read_text(encoding="utf-8"))
        if "qdrant" in path.read_text(encoding="utf-8").lower()
    ]
    assert elsewhere == []


def test_the_filter_is_built_in_one_place() -> None:
    defined = [
        path
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == "visible_filter"
    ]
    assert defined == [INDEX]


def test_every_search_of_the_index_takes_an_access_and_uses_its_filter() -> None:
    tree = ast.parse(INDEX.read_text(encoding="utf-8"))
    index = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Index")
    methods = {node.name: node for node in index.body if isinstance(node, ast.AsyncFunctionDef)}
    for name in SEEING_SCORES:
        assert "access" in [argument.arg for argument in methods[name].args.kwonlyargs], name
        assert "visible_filter(access)" in ast.unparse(methods[name]), name
    for name, method in methods.items():
        public = not name.startswith("_")
        reads = {node.attr for node in ast.walk(method) if isinstance(node, ast.Attribute)} & READING
        arguments = {argument.arg for argument in (*method.args.args, *method.args.kwonlyargs)}
        # The bank's staff read a version they name with its tenant; whatever else reads points takes an access.
        assert not (public and reads) or "access" in arguments or {"tenant", "version"} <= arguments, name
        if reads & {"query_points", "query_batch_points"}:
            assert not public, name
        if "models.QueryRequest(" in ast.unparse(method):
            narrowed = ("filter=visible", "filter=_in_language(visible, ")
            assert any(part in ast.unparse(method) for part in narrowed), name
