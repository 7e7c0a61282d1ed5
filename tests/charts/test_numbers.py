"""A number of a values file, which Helm reads as a float, is rendered as it stands there; a name stays a name."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from chatbot.settings import Settings as ChatSettings
from ingest.settings import Settings as StaffSettings
from tests.charts.rendering import CHART, NAME, Doc, environment, helm, objects, pods, template
from tests.golden.contracts import settings_of

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


def numbers(service: str, factor: int) -> dict[str, float]:
    """Return a service's settings that have a number as their default, whole ones multiplied; under names of nobody's,
    since the chart sets some of them itself."""
    found = {row["setting"]: row.get("default") for row in settings_of(SERVICES[service], None, "")}
    return {
        f"OF_{name}": value * factor if isinstance(value, int) else value
        for name, value in found.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


@pytest.mark.parametrize("factor", [1, 1_000_000])
@pytest.mark.parametrize("service", SERVICES)
def test_every_setting_that_is_a_number_reaches_the_program_as_it_was_written(
    service: str, factor: int, tmp_path: Path
) -> None:
    given = numbers(service, factor)
    assert len(given) > 10
    docs = objects(render_of({service: {"settings": given}}, tmp_path))
    pod = dict(pods(docs))[f"Deployment/{NAME}-{service}"]
    read = environment(pod["spec"]["containers"][0])
    assert {name: float(read[name]) for name in given} == given
    whole = {name: str(value) for name, value in given.items() if isinstance(value, int)}
    assert {name: read[name] for name in whole} == whole


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


def named_by_all(name: str, folder: Path) -> list[Doc]:
    """Return a render in which the release, its namespace and all that a values file names have that name."""
    values = {
        "secrets": {"existing": name},
        "images": {"pullSecrets": [name]},
        "caBundle": {"configMap": name},
        "weights": {"existingClaim": name},
        "ingest": {"blobs": {"storageClass": name}},
        "qdrant": {"storageClass": name},
        "priorityClasses": {"create": False, "gpu": name, "serving": name, "background": name, "placeholder": name},
        "scaling": {"authentication": {"name": name}},
        "tls": {"enabled": True, "issuer": {"name": name}, "gatewayCa": name, "secrets": {"redis": name}},
        "ingress": {"enabled": True, "className": name, "tlsSecret": name, "customerHosts": ["*.bank.example"]},
        "test": {"question": {"text": "hello", "tokenSecret": name, "tokenKey": name}},
        "llm": {
            "poolDefaults": {"runtimeClassName": name},
            "pools": {name: {"profile": "h100", "group": "primary"}},
        },
    }
    (folder / "names.yaml").write_text(json.dumps(values), "utf-8")
    arguments = ("template", name, str(CHART), "--namespace", name, "-f", str(folder / "names.yaml"))
    completed = helm(4, *arguments)
    assert completed.returncode == 0, completed.stderr
    return objects(completed.stdout)


def kinds_of(part: object, path: str = "") -> Iterator[str]:
    """Yield of which type each value is, by where it stands."""
    if isinstance(part, dict | list):
        for key, value in part.items() if isinstance(part, dict) else enumerate(part):
            yield from kinds_of(value, f"{path}/{key}")
    else:
        yield f"{path}: {type(part).__name__}"


def test_a_name_that_yaml_reads_as_something_else_is_a_name(tmp_path: Path) -> None:
    assert [*kinds_of(named_by_all("on", tmp_path))] == [*kinds_of(named_by_all("xx", tmp_path))]
