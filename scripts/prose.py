"""Check the wording of pages, docstrings, log events, error texts and new commit subjects.

usage: scripts/prose.py

The exit status is 1 if a text has a form that .prose.yaml or proselint itself rejects. Code and quotes are not checked,
because they may show how not to write.
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
# Code blocks, inline code, quotes, and the targets of links.
CODE = re.compile(r"^```.*?^```|`[^`\n]+`|\"[^\"\n]*\"|\]\([^)]*\)", re.MULTILINE | re.DOTALL)
# The first word of a commit's subject, after `component: `.
SUBJECT = re.compile(r"(?:[\w, -]+: )?(\w[\w'-]*)")
LOG_LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}
CONFIG = Config(max_errors=10_000, checks={"house": True} | dict.fromkeys(RULES["proselint"], True))
HOUSE = Check(check_type=PreferredForms(RULES["words"]), engine=Fancy(), path="house", message="write: {}")
# proselint takes any apostrophe for the beginning of a quote, so `CODE` removes quotes instead.
CHECKS = (check._replace(flags=check.flags._replace(allow_quotes=True)) for check in (*own_checks, HOUSE))
CheckRegistry().register_many(tuple(CHECKS))


def blanked(match: re.Match[str]) -> str:
    """Return blanks in place of the match, with its line breaks, so that line numbers stay right."""
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
    """Yield the linter's findings in a text, as one line each."""
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
    """Return the fault of a commit's subject; empty if it has none."""
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
    lines = [line for path in files() for line in findings(path.relative_to(ROOT).as_posix(), prose_of(path))]
    for subject in subjects():
        lines += findings(f"commit {subject!r}", subject)
        fault = wrong_subject(subject)
        if fault:
            lines.append(f"commit {subject!r}: {fault}")
    for line in lines:
        print(line, file=sys.stderr)
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
