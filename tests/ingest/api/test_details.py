"""What the server explains to staff in English stands on the staff page in Korean too."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import ingest
from ingest.api import routes

PACKAGE = Path(str(ingest.__file__)).parent
PAGE = Path(str(routes.__file__)).parents[1] / "web" / "details.js"
EXPLAINED = {"OriginalChanged", "Suspicious", "Unreadable", "WrongState"}
FIELDS = {"receive.py", "metadata.py"}
"""The modules that refuse fields of the staff page's forms."""


def sentences() -> Iterator[str]:
    """Yield each sentence that an error is raised with; a value in it is `{}`."""
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                continue
            if node.func.id in EXPLAINED or (node.func.id == "Unprocessable" and file.name in FIELDS):
                yield from filter(None, map(text, node.args))


def text(node: ast.expr) -> str:
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    if not any(isinstance(part, ast.Constant) and isinstance(part.value, str) for part in parts):
        return ""
    return "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in parts)


def test_every_explanation_has_its_korean() -> None:
    known = re.findall(r'^  "(.+?)": "[^"]*[가-힣][^"]*",$', PAGE.read_text("utf-8"), re.MULTILINE)
    translated = {re.sub(r"\{\w\}", "{}", key) for key in known}
    explained = set(sentences())
    assert len(explained) > 60
    assert explained - translated == set()
