"""Selects the tests of `make test-fast`: those that start no process and load no model, judged by their imports.

A file is excluded if it, or a test module that it imports, imports a name in `STARTING`. In the other files, tests that
use a fixture in `STARTED` are excluded. A selected test that starts a process nevertheless fails.
"""

import ast
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STARTING = {
    *("subprocess", "multiprocessing", "torch", "transformers", "sentence_transformers", "playwright", "ray"),
    *("redis_server", "scripted_server", "open_embedder", "open_parser", "open_readers", "run_process", "uvicorn"),
    *("loaded_corpus", "openai"),
}
"""Modules, and our own names, with which a test starts a process, calls a running product or loads a model."""
STARTED = {"redis_url", "server", "postgres", "weights", "readers", "product"}
"""Fixtures that start a process or load a model."""


class OnlyFast:
    """The plugin of `--fast`."""

    def __init__(self) -> None:
        self._running = ""
        sys.addaudithook(self._audit)

    def pytest_ignore_collect(self, collection_path: Path) -> bool | None:
        """Exclude files by their imports."""
        is_test = collection_path.name.startswith("test_") and collection_path.suffix == ".py"
        return True if is_test and starts_something(collection_path) else None

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Exclude tests by their fixtures, and the PostgreSQL variants of tests that run on both databases."""
        slow = [item for item in items if STARTED & set(getattr(item, "fixturenames", ())) or "postgresql" in item.name]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> object:
        self._running = item.nodeid
        try:
            return (yield)
        finally:
            self._running = ""

    def _audit(self, event: str, arguments: tuple[object, ...]) -> None:
        if self._running and event in {"subprocess.Popen", "os.fork", "os.posix_spawn", "os.exec"}:
            raise RuntimeError(f"{self._running} starts a process: tests/fast.py has to leave it out ({arguments[:1]})")


@cache
def starts_something(path: Path) -> bool:
    """Return whether a test module, or one that it imports, imports a name in `STARTING`."""
    for node in ast.parse(path.read_text("utf-8")).body:
        match node:
            case ast.Import(names=names):
                imported, modules = {alias.name for alias in names}, [alias.name for alias in names]
            case ast.ImportFrom(module=str(module), names=names):
                imported = {module, *(alias.name for alias in names)}
                modules = [module, *(f"{module}.{alias.name}" for alias in names)]
            case _:
                continue
        if any(f"{each}.".startswith(f"{name}.") for each in imported for name in STARTING):
            return True
        files = {
            ROOT.joinpath(*module.split(".")).with_suffix(".py") for module in modules if module.startswith("tests.")
        }
        if any(file.exists() and file.name != "conftest.py" and starts_something(file) for file in files):
            return True
    return False
