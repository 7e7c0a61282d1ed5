"""House rules as code: what lint cannot say (style.md)."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("chatbot", "ingest", "llm_server", "knowledge", "telemetry", "evals")
DRAWERS = {"utils", "util", "common", "helpers", "helper", "base", "manager", "handler", "handlers", "service", "misc"}


def modules() -> Iterator[Path]:
    for package in PACKAGES:
        yield from sorted((ROOT / package).rglob("*.py"))


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


@pytest.mark.parametrize("path", list(modules()), ids=lambda p: str(p.relative_to(ROOT)))
def test_a_module_is_no_drawer(path: Path) -> None:
    assert path.stem not in DRAWERS, "name a module for what it knows (house rule 10)"


@pytest.mark.parametrize("path", list(modules()), ids=lambda p: str(p.relative_to(ROOT)))
def test_a_module_opens_nothing_on_import(path: Path) -> None:
    # Constants, loggers, routers, types and compiled patterns are made at module level; connections never are.
    opening = {"Redis", "AsyncQdrantClient", "QdrantClient", "ClientSession", "create_async_engine", "open", "FastAPI"}
    for node in parsed(path).body:
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.Expr):
            called = {
                getattr(call.func, "id", getattr(call.func, "attr", ""))
                for call in ast.walk(node)
                if isinstance(call, ast.Call)
            }
            assert not called & opening, f"{path.name}:{node.lineno} opens {called & opening} on import (house rule 2)"


@pytest.mark.parametrize("path", list(modules()), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_stand_at_the_top(path: Path) -> None:
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            hidden = [n.lineno for n in ast.walk(node) if isinstance(n, ast.Import | ast.ImportFrom)]
            assert not hidden, f"{path.name}:{hidden} imports inside a function"


def test_nobody_mocks() -> None:
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for node in ast.walk(parsed(path)):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            assert "unittest.mock" not in [*names, module], f"{path} uses a mock (house rule 7)"


def test_the_environment_is_read_only_at_the_edge() -> None:
    for path in modules():
        lines = path.read_text("utf-8").splitlines()
        for node in ast.walk(parsed(path)):
            if not (isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv"}):
                continue
            at_the_edge = path.name == "__main__.py" or "TID251" in lines[node.lineno - 1]
            assert at_the_edge, f"{path} reads the environment (house rule 9)"


def test_broad_excepts_stand_only_at_the_edges() -> None:
    edges = {
        "chatbot/turn.py",  # an answer's end
        "ingest/batch.py",  # the start of Ray, which raises Exception itself
        "ingest/indexing.py",  # a job's end
        "ingest/parsing/process.py",  # the parsing child's only loop
        "knowledge/embedding.py",  # the embedding thread's loop
    }
    for path in modules():
        broad = [
            node.lineno
            for node in ast.walk(parsed(path))
            if isinstance(node, ast.ExceptHandler)
            and (node.type is None or getattr(node.type, "id", "") == "Exception")
        ]
        name = str(path.relative_to(ROOT))
        assert not broad or name in edges, f"{name}:{broad} catches everything (house rule 5)"
