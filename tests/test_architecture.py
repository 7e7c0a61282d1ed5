"""House rules as code: what lint cannot say (CONTRIBUTING.md)."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("chatbot", "ingest", "llm_server", "knowledge", "edge", "telemetry", "evals")
DRAWERS = {"utils", "util", "common", "helpers", "helper", "base", "manager", "handler", "handlers", "service", "misc"}


def modules() -> Iterator[Path]:
    for package in PACKAGES:
        yield from sorted((ROOT / package).rglob("*.py"))


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


@cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    """Return what a module is written of: to walk through all files takes a second, and six rules do."""
    return tuple(ast.walk(parsed(path)))


def test_no_module_is_a_drawer() -> None:
    assert [path for path in modules() if path.stem in DRAWERS] == [], "name a module for what it knows (house rule 10)"


def test_no_module_opens_anything_on_import() -> None:
    # Constants, loggers, routers, types and compiled patterns are made at module level; connections never are.
    opening = {"Redis", "AsyncQdrantClient", "QdrantClient", "ClientSession", "create_async_engine", "open", "FastAPI"}
    for path in modules():
        for node in parsed(path).body:
            if isinstance(node, ast.Assign | ast.AnnAssign | ast.Expr):
                calls = [call.func for call in ast.walk(node) if isinstance(call, ast.Call)]
                opened = opening & {getattr(called, "id", getattr(called, "attr", "")) for called in calls}
                assert not opened, f"{path}:{node.lineno} opens {opened} on import (house rule 2)"


def test_no_program_imports_slow_modules_at_its_start() -> None:
    # Torch takes seconds and half a gigabyte, the client of a Qdrant server half a second.
    slow_to_import = {"torch", "transformers", "sentence_transformers", "qdrant_client"}
    programs = ("chatbot.api", "chatbot.__main__", "ingest.app", "llm_server.__main__")
    command = [sys.executable, "-c", f"import sys, {', '.join(programs)}; print(*sorted(sys.modules))"]
    imported = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.split()  # noqa: S603
    assert set(programs) <= set(imported)
    assert slow_to_import & {name.partition(".")[0] for name in imported} == set()


def test_broad_excepts_stand_only_at_the_edges() -> None:
    edges = {
        "chatbot/tokens.py",  # the tokenizers library, which raises Exception itself
        "chatbot/turns/answering.py",  # an answer's end
        "ingest/bulk/batch.py",  # the start of Ray, which raises Exception itself
        "ingest/job_runner.py",  # a job's end
        "ingest/parsing/process.py",  # the parsing child's only loop
        "knowledge/embedding/embedding.py",  # the embedding thread's loop
        "knowledge/embedding/served.py",  # the tokenizers library, which raises Exception itself
        "telemetry/supervision.py",  # the one place where failures of tasks and of single answers end
    }
    for path in modules():
        broad = [
            node.lineno
            for node in nodes(path)
            if isinstance(node, ast.ExceptHandler)
            and (node.type is None or getattr(node.type, "id", "") == "Exception")
        ]
        name = str(path.relative_to(ROOT))
        assert not broad or name in edges, f"{name}:{broad} catches everything (house rule 5)"


@cache
def room_of(module: str) -> str | None:
    """Return the room that a module lives in: a package below one of ours; the test of a room lives in it too."""
    parts = module.removeprefix("tests.").split(".")
    folder = ROOT.joinpath(*parts[:2])
    is_room = len(parts) > 1 and parts[0] in PACKAGES and (folder / "__init__.py").exists()
    return ".".join(parts[:2]) if is_room else None


@cache
def door_of(room: str) -> frozenset[str]:
    """Return what a room's `__all__` lists."""
    for node in parsed(ROOT.joinpath(*room.split("."), "__init__.py")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            names: list[str] = ast.literal_eval(node.value)
            return frozenset(names)
    return frozenset()


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@cache
def imported(path: Path) -> tuple[tuple[int, str, str], ...]:
    """Return (line, module, name) of every import; the name is empty where the module itself is imported."""
    imports: list[tuple[int, str, str]] = []
    for node in nodes(path):
        if isinstance(node, ast.Import):
            imports += [(node.lineno, alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            imports += [(node.lineno, node.module, alias.name) for alias in node.names]
    return tuple(imports)


def behind_a_door(path: Path) -> Iterator[str]:
    mine = room_of(module_name(path))
    for line, module, name in imported(path):
        room = room_of(module) if not module.startswith("tests.") else None
        if room is not None and room != mine and (module != room or name not in door_of(room)):
            yield f"{path.relative_to(ROOT)}:{line} imports {name or module} from behind the door of {room}"


EVERY_FILE = [*modules(), *sorted((ROOT / "tests").rglob("*.py")), ROOT / "run.py"]


def test_nobody_imports_from_behind_the_door_of_another_room() -> None:
    assert [problem for path in EVERY_FILE for problem in behind_a_door(path)] == []


def rooms() -> Iterator[str]:
    for package in PACKAGES:
        for init in sorted((ROOT / package).glob("*/__init__.py")):
            yield f"{package}.{init.parent.name}"


def test_a_room_has_a_docstring_and_exports_only_names_used_elsewhere() -> None:
    for room in rooms():
        init = ROOT.joinpath(*room.split("."), "__init__.py")
        assert len(ast.get_docstring(parsed(init)) or "") > 40, f"{room} does not say what it is for"
        outside = [path for path in EVERY_FILE if room_of(module_name(path)) != room]
        used = {name for path in outside for _, module, name in imported(path) if module == room}
        assert sorted(door_of(room) - used) == [], f"nobody comes through the door of {room} for these"


def pure_modules() -> Iterator[Path]:
    """Yield the modules that import-linter keeps from drivers, and what a turn is made of."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    contracts = config["tool"]["importlinter"]["contracts"]
    listed = next(c["source_modules"] for c in contracts if c["name"].startswith("the pure core"))
    for module in [*listed, "chatbot.turns.state", "chatbot.turns.quoting"]:
        folder = ROOT.joinpath(*module.split("."))
        yield from sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]


CHANCE = {"random", "secrets", "asyncio", "anyio"}
CLOCKS_AND_DICE = {
    *(f"time.{name}" for name in ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "sleep")),
    *("datetime.now", "datetime.utcnow", "datetime.today", "date.today", "uuid.uuid4", "uuid4", "secrets", "random"),
}


def impurities(node: ast.AST) -> Iterator[str]:
    """Yield what makes the syntax below a node impure: awaiting, clocks, randomness."""
    for child in ast.walk(node):
        if isinstance(child, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith):
            yield f"{child.lineno} {type(child).__name__}"
        elif isinstance(child, ast.Call):
            called = ast.unparse(child.func)
            if ".".join(called.split(".")[-2:]) in CLOCKS_AND_DICE:
                yield f"{child.lineno} calls {called}"


def test_a_pure_module_awaits_nothing_and_reads_no_clock() -> None:
    impure = {str(path): list(impurities(parsed(path))) for path in pure_modules()}
    for path in pure_modules():
        from_clocks = [f"{module}.{name}" for _, module, name in imported(path) if name]
        modules_of_chance = {module.partition(".")[0] for _, module, _ in imported(path)} & CHANCE
        impure[str(path)] += [*modules_of_chance, *CLOCKS_AND_DICE.intersection(from_clocks)]
    assert {path: found for path, found in impure.items() if found} == {}, "time and randomness are arguments"


def test_the_spine_sees_no_driver() -> None:
    drivers = {"redis", "qdrant_client", "qdrant_edge", "aiohttp", "sqlalchemy"}
    for path in (ROOT / "chatbot/turns").glob("*.py"):
        packages = {module.partition(".")[0] for _, module, _ in imported(path)}
        assert packages & drivers == set(), f"{path}: services hide the drivers (house rule 2)"


def test_events_are_logged_by_structlog_under_a_name_in_snake_case() -> None:
    stdlib_loggers = {
        "ingest/bulk/batch.py",  # quiets the loggers of Ray
        "ingest/parsing/process.py",  # structlog would make every process that reads 12 MiB larger
        "telemetry/logs.py",
    }
    for path in modules():
        name = str(path.relative_to(ROOT))
        standard = any(module == "logging" for _, module, _ in imported(path))
        assert not standard or name in stdlib_loggers, f"{name} logs past structlog"
        for node in nodes(path):
            if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("log.") and node.args:
                texts = [text.value for text in ast.walk(node.args[0]) if isinstance(text, ast.Constant)]
                wrong = [t for t in texts if isinstance(t, str) and not re.fullmatch(r"[a-z][a-z0-9_]*(: %s)?", t)]
                assert not wrong, f"{name}:{node.lineno} {wrong}"
