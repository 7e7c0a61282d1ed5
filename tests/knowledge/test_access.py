"""Access to passages: no search in the code omits the filter, which tests/knowledge/index/conformance.py tests."""

import ast
import re
from dataclasses import replace
from pathlib import Path

import pytest

import knowledge
from knowledge.index import Index
from tests.knowledge.conftest import CUSTOMER, numbered

ROOT = Path(str(knowledge.__file__)).parent.parent
PACKAGES = ("chatbot", "ingest", "edge", "knowledge", "llm_server", "telemetry", "evals")
INDEX = ROOT / "knowledge" / "index" / "index.py"
ENGINES = {ROOT / "knowledge" / "index" / name for name in ("server.py", "edge.py")}
READING = {"search", "page", "read"}
"""The methods of an engine that return points."""
COUNTING = {"count_differing", "holds_visible_passages"}
SEEING_SCORES = {"_search", "passage"}


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


def test_only_the_adapters_know_an_engine() -> None:
    elsewhere = [
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if path not in ENGINES
        and re.search(r"^\s*(import|from) (qdrant_client|qdrant_edge)", path.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert elsewhere == []


def engine_calls(method: ast.AST) -> set[str]:
    """Return the engine's reading methods that a method of the index uses."""
    return {
        node.attr
        for node in ast.walk(method)
        if isinstance(node, ast.Attribute) and node.attr in READING and ast.unparse(node.value) == "self._engine"
    }


def test_every_search_of_the_index_takes_an_access_and_uses_its_filter() -> None:
    tree = ast.parse(INDEX.read_text(encoding="utf-8"))
    index = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Index")
    methods = {node.name: node for node in index.body if isinstance(node, ast.AsyncFunctionDef)}
    reading = {name for name, method in methods.items() if engine_calls(method)}
    assert reading >= {"_search", "passage", "_hits", "passages"}
    for name in SEEING_SCORES:
        assert "access" in [argument.arg for argument in methods[name].args.kwonlyargs], name
        assert "visible_filter(access)" in ast.unparse(methods[name]), name
    for name, method in methods.items():
        public = not name.startswith("_")
        reads = engine_calls(method)
        arguments = {argument.arg for argument in (*method.args.args, *method.args.kwonlyargs)}
        # The bank's staff read a version they name with its tenant; COUNTING returns no text.
        given = "access" in arguments or {"tenant", "version"} <= arguments or name in COUNTING
        assert not (public and reads) or given, name
        # Only `_search`, which builds the filter of its access, searches the engine.
        assert "search" not in reads or name == "_search"
    queries = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "Query"]
    assert len(queries) == 2
    for query in queries:
        (only,) = [ast.unparse(keyword.value) for keyword in query.keywords if keyword.arg == "filter"]
        assert only in ("visible", "visible.narrowed(Equals('language', language))")
