"""Commands of our own programs on the pages for operators, as each program's own parser takes them."""

import re
import tomllib
from collections.abc import Iterator
from importlib import import_module
from itertools import dropwhile
from pathlib import Path
from typing import Any

import pytest
import typer
from typer._click.exceptions import UsageError  # of the parser that typer brings; it has no other name

from tests.charts.rendering import ROOT
from tests.operator_pages import PAGES, blocks, simple_commands

SCRIPTS: dict[str, str] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["scripts"]
OURS = "|".join(SCRIPTS)
INLINE = re.compile(rf"`((?:[A-Z_]+=\S+ )*(?:{OURS}) [^`\n]+)`")
ASSIGNMENT = re.compile(r"[A-Z_]+=")
MIGRATES = re.compile(r"\b(\w+) migrate +# knowledge (\d+), (\w+) (\d+)")


def ours(page: Path) -> Iterator[list[str]]:
    """Yield the words of a page's commands of our programs, of its blocks and between its lines, in a pod too."""
    for script in (*blocks(page, "sh"), *INLINE.findall(page.read_text("utf-8"))):
        # A synopsis: `a\|b` is one or the other, `[--c D]…` may be left out.
        for words in simple_commands(re.sub(r"\\\|", "/", script)):
            in_the_pod = words[words.index("--") + 1 :] if "--" in words else words
            command = [*dropwhile(ASSIGNMENT.match, in_the_pod)]
            if command and command[0] in SCRIPTS:
                yield command


def refusal(words: list[str]) -> str:
    """Return what a program would say against a command; empty where it takes it, or where it is only named.

    `…` as the last word, where no option's value is due, leaves the rest out.
    """
    module, _, attribute = SCRIPTS[words[0]].partition(":")
    command: Any = typer.main.get_command(getattr(import_module(module), attribute))
    given = [re.sub(r"[\[\]]|…$", "", word) or word for word in words[1:]]
    while given and hasattr(command, "commands"):
        names = given[0].split("/")
        if unknown := [name for name in names if name not in command.commands]:
            return f"no command {unknown[0]}"
        command, given = command.commands[names[0]], given[1:]
    if not given or hasattr(command, "commands"):
        return ""
    elided = given[-1] == "…" and not given[-2:][0].startswith("--")
    try:
        parser = command.make_parser(command.context_class(command, info_name=words[0]))
        found, _, _ = parser.parse_args(given[:-1] if elided else given)
    except UsageError as error:
        return str(error)
    missing = [p.name for p in command.params if p.required and not elided and found.get(p.name) in {None, ()}]
    return f"lacks {', '.join(missing)}" if missing else ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_of_ours_is_taken_as_a_page_writes_it(page: Path) -> None:
    refusals = {" ".join(words): refusal(words) for words in ours(page)}
    assert {command: text for command, text in refusals.items() if text} == {}


def test_the_pages_have_commands_to_compare() -> None:
    assert len([words for page in PAGES for words in ours(page)]) > 60


def test_the_documented_revisions_of_migrate_are_the_last() -> None:
    text = (ROOT / "docs/install.md").read_text("utf-8")
    last = {
        owner: max(path.name[:4] for path in (ROOT / owner).glob("**/versions/[0-9]*.py"))
        for owner in ("knowledge", "chatbot", "ingest")
    }
    printed = MIGRATES.findall(text)
    assert printed == [(owner, last["knowledge"], owner, last[owner]) for owner in ("ingest", "chatbot")]
