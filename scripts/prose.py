"""Check the wording of pages, docstrings, log events, error texts and new commit subjects.

usage: scripts/prose.py      exit status 1 where a text has a form of .prose.yaml, or of proselint's own

Code is left out, and so are quotes: they may show how not to write.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from proselint.checks import __register__ as own_checks
from proselint.config import Config
from proselint.registry import CheckRegistry
from proselint.registry.checks import Check
from proselint.registry.checks.engine import Fancy
from proselint.registry.checks.types import PreferredForms
from proselint.tools import LintFile

ROOT = Path(__file__).resolve().parents[1]
RULES: dict[str, Any] = yaml.safe_load((ROOT / ".prose.yaml").read_text("utf-8"))
CODE = re.compile(r"^```.*?^```|`[^`\n]+`|\"[^\"\n]*\"|\]\([^)]*\)", re.MULTILINE | re.DOTALL)
SUBJECT = re.compile(r"(?:[\w, -]+: )?(\w[\w'-]*)")
LOG_LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}
CONFIG = Config(max_errors=10_000, checks={"house": True} | dict.fromkeys(RULES["proselint"], True))
HOUSE = Check(check_type=PreferredForms(RULES["words"]), engine=Fancy(), path="house", message="write: {}")
# What proselint takes for quotes begins at any apostrophe; quotes are left out by `CODE`.
CHECKS = (check._replace(flags=check.flags._replace(allow_quotes=True)) for check in (*own_checks, HOUSE))
CheckRegistry().register_many(tuple(CHECKS))


def blanked(match: re.Match[str]) -> str:
    """Return blanks of the match's shape, so that lines keep their numbers."""
    return re.sub(r"[^\n]", " ", match[0])


def strings(node: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the string constants within an expression, those of f-strings included, each with its line."""
    for part in ast.walk(node):
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            yield part.lineno, part.value


def texts(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield a module's docstrings (of attributes too), log events and error texts, each with its line."""
    for node in ast.walk(tree):
        match node:
            case ast.Expr(value=ast.Constant()):
                yield from strings(node)
            case ast.Call(func=ast.Attribute(value=ast.Name(id="log"), attr=level)) if level in LOG_LEVELS:
                for argument in node.args:
                    yield from strings(argument)
            case ast.Raise(exc=ast.Call() as error):
                yield from strings(error)


def prose_of(path: Path) -> str:
    """Return the prose of a file, each line at its number."""
    text = path.read_text("utf-8")
    if path.suffix == ".py":
        lines = [""] * (text.count("\n") + 2)
        for lineno, string in texts(ast.parse(text)):
            for n, line in enumerate(string.replace("_", " ").splitlines(), lineno - 1):
                lines[min(n, len(lines) - 1)] += f" {line}"
        text = "\n".join(lines)
    return CODE.sub(blanked, text)


def files() -> Iterator[Path]:
    """Yield the files whose prose is checked."""
    for kind, suffix in (("pages", ".md"), ("modules", ".py")):
        for path in (ROOT / entry for entry in RULES[kind]):
            yield from sorted(path.rglob(f"*{suffix}")) if path.is_dir() else [path]


def findings(name: str, text: str) -> Iterator[str]:
    """Yield what the linter finds in a text, a line each."""
    linted = LintFile(name, text)
    for result in linted.lint(CONFIG):
        start, end = result.check_result.span
        line, form = linted.content.count("\n", 0, start), linted.content[start:end].strip()
        yield f"{name}:{line}: {form!r}: {result.check_result.message}"


def subjects() -> list[str]:
    """Return the subjects of the commits that main lacks."""
    git = partial(subprocess.run, capture_output=True, text=True, cwd=ROOT, check=False)
    for main in ("origin/main", "main"):
        logged = git(["git", "log", "--no-merges", "--format=%s", f"{main}..HEAD"])
        if logged.returncode == 0:
            return logged.stdout.splitlines()
    return []


def wrong_subject(subject: str) -> str:
    """Return what is wrong with a commit's subject; empty where nothing is."""
    first = SUBJECT.match(subject)
    if len(subject) > RULES["subject"]["longest"]:
        return f"longer than {RULES['subject']['longest']} characters"
    if subject.endswith("."):
        return "ends with a period"
    if first is None or re.fullmatch(RULES["subject"]["not_imperative"], first[1], re.IGNORECASE):
        return "begins without an imperative (after `component: `)"
    return ""


def main() -> int:
    """Print the findings; return the exit status."""
    found = [line for path in files() for line in findings(path.relative_to(ROOT).as_posix(), prose_of(path))]
    for subject in subjects():
        found += findings(f"commit {subject!r}", subject)
        found += [f"commit {subject!r}: {wrong}"] if (wrong := wrong_subject(subject)) else []
    print("\n".join(found), file=sys.stderr, end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
