"""What the pages for operators say of the chart is true of it: values, `helm upgrade`s, names of objects.

A page's values are rendered with the files and options of its own `helm upgrade`.
"""

import json
import re
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.charts.rendering import CHART, NAME, ROOT, VALUES, Doc, helm, objects, render
from tests.charts.test_render import TYPES, validated
from tests.operator_pages import CLOUDS, PAGES, blocks, simple_commands

SCHEMA: Doc = json.loads((CHART / "values.schema.json").read_text("utf-8"))
KINDS = {
    "deployment": "Deployment", "statefulset": "StatefulSet", "pvc": "PersistentVolumeClaim",
    "hpa": "HorizontalPodAutoscaler", "service": "Service", "cronjob": "CronJob",
}  # fmt: skip
CUSTOM_KINDS = {*TYPES, "GCPBackendPolicy", "HealthCheckPolicy"}


def files(page: Path) -> dict[str, str]:
    """Return the YAML files of a page by the names in their first lines."""
    texts = blocks(page, "yaml")
    return {text.partition("\n")[0].removeprefix("# "): text for text in texts if text.startswith("# ")}


def upgrades(page: Path) -> list[list[str]]:
    """Return the words of each `helm upgrade` of our chart on a page."""
    commands = (words for script in blocks(page, "sh") for words in simple_commands(script))
    return [words for words in commands if words[:2] == ["helm", "upgrade"] and "charts/bank-chatbot" in words]


def rendered(page: Path, folder: Path) -> list[Doc]:
    """Render as the page's own command does, with the page's own files."""
    for name, text in files(page).items():
        (folder / name).write_text(text, "utf-8")
    arguments: list[str] = []
    (words,) = upgrades(page)
    for option, value in pairwise(words):
        if option == "-f":
            arguments += ["-f", str(ROOT / value if value.startswith("charts/") else folder / value)]
        elif option in {"--set", "--set-string"}:
            arguments += [option, value]
    completed = helm(4, "template", "bank", str(CHART), "--namespace", "bank", *arguments)
    assert completed.returncode == 0, f"{page.name}: {completed.stderr}"
    return objects(completed.stdout)


@pytest.mark.parametrize("page", CLOUDS, ids=lambda page: page.stem)
def test_a_cloud_s_values_render_to_valid_objects(page: Path, tmp_path: Path) -> None:
    docs = rendered(page, tmp_path)
    completed = validated([doc for doc in docs if doc["kind"] not in CUSTOM_KINDS])
    assert completed.returncode == 0, completed.stderr
    assert {doc["metadata"]["name"] for doc in docs if doc["kind"] == "StatefulSet"} >= {f"{NAME}-llm-h100"}
    workloads = [doc["spec"] for doc in docs if doc["kind"] in {"Deployment", "StatefulSet"}]
    assert "registry.example.com" not in json.dumps(workloads)


def test_gke_s_gateway_cuts_no_stream(tmp_path: Path) -> None:
    # GKE refuses timeouts in a route, and cuts a stream after 30 s unless its own policy says otherwise.
    docs = rendered(ROOT / "docs/clouds/gke.md", tmp_path)
    rules = [rule for doc in docs if doc["kind"] == "HTTPRoute" for rule in doc["spec"]["rules"]]
    assert all("timeouts" not in rule for rule in rules)
    (policy,) = [doc for doc in docs if doc["kind"] == "GCPBackendPolicy"]
    (backend,) = rules[0]["backendRefs"]
    assert policy["spec"]["targetRef"]["name"] == backend["name"]
    assert policy["spec"]["default"]["timeoutSec"] > 180


def test_values_of_other_pages_render_over_production_s(tmp_path: Path) -> None:
    found = 0
    for page in (page for page in PAGES if page not in CLOUDS):
        for name, text in files(page).items():
            if name.startswith("values-"):
                (tmp_path / name).write_text(text, "utf-8")
                render("values-prod", "-f", str(tmp_path / name))
                found += 1
    assert found == 8


def test_every_upgrade_of_a_page_renders_over_production_s() -> None:
    found = [words for page in PAGES if page not in CLOUDS for words in upgrades(page) if "-f" not in words]
    assert len(found) > 4
    for words in found:
        render("values-prod", *(w for option in pairwise(words) if option[0].startswith("--set") for w in option))


@cache
def existing() -> set[tuple[str, str]]:
    """Return the kinds and names that any of our values files renders, and those of claims that StatefulSets make."""
    found = set()
    for name in VALUES:
        for doc in render(name):
            found.add((doc["kind"], doc["metadata"]["name"]))
            for claim in doc["spec"].get("volumeClaimTemplates", []) if doc["kind"] == "StatefulSet" else []:
                found.add(("PersistentVolumeClaim", f"{claim['metadata']['name']}-{doc['metadata']['name']}-0"))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_object_that_a_command_names_is_rendered(page: Path) -> None:
    there = existing()
    for text in re.findall(r"kubectl [^`\n]+", page.read_text("utf-8").replace("\\\n", " ")):
        for kind, name in re.findall(rf"\b({'|'.join(KINDS)})[ /]((?:data-)?{NAME}[-a-z0-9]*+)(?![A-Z…])", text):
            assert (KINDS[kind], name) in there, f"{page.name}: {text}"
        for name in re.findall(rf"exec (?:-i )?({NAME}[-a-z0-9]*)-0\b", text):
            assert ("StatefulSet", name) in there, f"{page.name}: {text}"


def is_value(path: list[str], schema: Any) -> bool:
    """Return whether the schema knows a value of this path; a map's own keys (pools) may have any name."""
    schema = SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    if not path:
        return True
    if path[0] in schema.get("properties", {}):
        return is_value(path[1:], schema["properties"][path[0]])
    other = schema.get("additionalProperties")
    if isinstance(other, dict):
        return is_value(path[1:], other)
    return "properties" not in schema  # plans, tolerations: what Kubernetes or another schema knows


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_value_that_a_page_names_is_one_of_the_chart(page: Path) -> None:
    text = page.read_text("utf-8")
    for name in re.findall(r"`([a-z][A-Za-z]*(?:\.[A-Za-z][A-Za-z0-9]*)+)(?::[^`]*|=[^`]*)?`", text):
        is_file = re.search(r"\.(yaml|md|py|json|log)$|^tls\.(crt|key)$", name)
        if name.partition(".")[0] in SCHEMA["properties"] and not is_file:
            assert is_value(name.split("."), SCHEMA), f"{page.name}: {name}"
