"""A number of a values file, which Helm reads as a float, is rendered as it stands there; a name stays a name."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from chatbot.settings import Settings as ChatSettings
from ingest.settings import Settings as StaffSettings
from tests.charts.rendering import CHART, Doc, template

SERVICES: dict[str, type[ChatSettings | StaffSettings]] = {"chatbot": ChatSettings, "ingest": StaffSettings}
LARGE = 1_234_567
EXPONENT = re.compile(r"\b\d(?:\.\d+)?[eE]\+\d\d")
SCHEMA = json.loads((CHART / "values.schema.json").read_text("utf-8"))


def render_of(values: object, folder: Path) -> str:
    """Return the render with a file of values: what `--set` gives is a whole number already."""
    (folder / "numbers.yaml").write_text(json.dumps(values), "utf-8")
    completed = template("values", "-f", str(folder / "numbers.yaml"))
    assert completed.returncode == 0, completed.stderr
    return completed.stdout


def unbounded(schema: Doc, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the paths of the values that may be a whole number of a million or more; `*` is any name."""
    while "$ref" in schema:
        schema = SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]]
    kinds = schema.get("type", ())
    if {"integer", "number"} & {*([kinds] if isinstance(kinds, str) else kinds)} and schema.get(
        "maximum", LARGE
    ) >= LARGE:
        yield path
    for name, part in schema.get("properties", {}).items():
        yield from unbounded(part, (*path, name))
    if isinstance(schema.get("additionalProperties"), dict):
        yield from unbounded(schema["additionalProperties"], (*path, "*"))


def test_no_value_that_may_be_large_is_rendered_with_an_exponent(tmp_path: Path) -> None:
    paths = [path for path in unbounded(SCHEMA) if path[-1] != "weight"]  # a share, by its range
    assert ("podSecurity", "user") in paths
    assert ("chatbot", "settings", "*") in paths
    values: Doc = {}
    for path in paths:
        part = values
        for name in path[:-1]:
            part = part.setdefault("h100" if name == "*" else name, {})
        part["A_NUMBER" if path[-1] == "*" else path[-1]] = LARGE
    text = render_of(values, tmp_path)
    assert text.count(str(LARGE)) > len(paths)
    assert EXPONENT.findall(text) == []
