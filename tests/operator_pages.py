"""The pages for operators, and the blocks and commands in them."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"
CLOUDS = sorted((DOCS / "clouds").glob("*.md"))
OTHERS = ("operations", "install", "identity", "tls", "models", "documents", "backup", "capacity", "upgrades", "day-2")
PAGES = [*CLOUDS, *(DOCS / f"{name}.md" for name in OTHERS), *sorted((DOCS / "runbooks").glob("*.md"))]
BLOCK = re.compile(r"^ *```(\w+)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    """Return the texts of a page's blocks in a language."""
    return [text for kind, text in BLOCK.findall(page.read_text("utf-8")) if kind == language]


def simple_commands(script: str) -> Iterator[list[str]]:
    """Yield the words of a shell script's commands: of pipes, lists and loops too, without redirections."""
    for line in script.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        redirected = False
        for word in [*lexer, ";"]:
            if redirected:
                redirected = False
            elif set(word) <= set("<>&") and set(word) & set("<>"):
                redirected = True
            elif set(word) <= set("();|&"):
                while words and words[0] in {"do", "then", "else", "if", "while", "!"}:
                    words = words[1:]
                if words:
                    yield words
                words = []
            else:
                words.append(word)
