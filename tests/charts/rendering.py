"""Renders of the chart by real Helm, and what is asked of them again and again.

`python -m tests.charts.rendering` writes the golden renders anew.
"""

import subprocess
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts/bank-chatbot"
PARTS = ROOT / ".venv/charts"
GOLDEN = Path(__file__).parent / "golden"
NAME = "bank-bank-chatbot"
"""The release's name and the chart's, which the names of all its objects begin with."""
RELEASE = ("bank", "--namespace", "bank")
ENVIRONMENTS = ("dev", "staging", "prod", "airgapped")
VALUES = ("values", *(f"values-{name}" for name in ENVIRONMENTS))
SCALED = ("--set", "scaling.engine=hpa")

Doc = dict[str, Any]
"""A Kubernetes object as YAML has it."""


def tool(name: str) -> str:
    """Return the path of a program that scripts/chart_parts brings; without it the test is skipped."""
    path = PARTS / name
    if not path.exists():
        pytest.skip(f"{path.relative_to(ROOT)} is missing: scripts/chart_parts brings it")
    return str(path)


def helm(major: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Helm; its own folders stay out of the home."""
    home = {"HOME": str(PARTS / "home"), "PATH": "/usr/bin:/bin"}
    return subprocess.run(  # noqa: S603
        [tool(f"helm{major}"), *arguments], env=home, capture_output=True, text=True, check=False, timeout=60
    )


def values_of(name: str) -> list[str]:
    """Return the arguments for one of the chart's own values files."""
    return [] if name == "values" else ["-f", str(CHART / f"{name}.yaml")]


def template(name: str, *more: str, major: int = 4) -> subprocess.CompletedProcess[str]:
    """Render with one of the chart's values files and what else is given."""
    return helm(major, "template", RELEASE[0], str(CHART), *RELEASE[1:], *values_of(name), *more)


@cache
def render(name: str = "values", *more: str, major: int = 4) -> Sequence[Doc]:
    """Return the objects of a render that must succeed."""
    done = template(name, *more, major=major)
    assert done.returncode == 0, done.stderr
    return [doc for doc in yaml.safe_load_all(done.stdout) if doc]


def named(docs: Sequence[Doc], kind: str, name: str) -> Doc:
    """Return the one object of that kind and name."""
    matching = [doc for doc in docs if doc["kind"] == kind and doc["metadata"]["name"] == name]
    assert len(matching) == 1, f"{kind} {name}: {len(matching)}"
    return matching[0]


def of_kind(docs: Sequence[Doc], *kinds: str) -> list[Doc]:
    """Return all objects of the kinds."""
    return [doc for doc in docs if doc["kind"] in kinds]


def pods(docs: Sequence[Doc]) -> Iterator[tuple[str, Doc]]:
    """Yield (kind/name, pod template) of everything that makes pods."""
    for doc in docs:
        spec = doc.get("spec", {})
        template = {"Pod": doc, "CronJob": spec.get("jobTemplate", {}).get("spec", {}).get("template")}.get(
            doc["kind"], spec.get("template") if doc["kind"] in {"Deployment", "StatefulSet", "Job"} else None
        )
        if template:
            yield f"{doc['kind']}/{doc['metadata']['name']}", template


def containers(pod: Doc) -> list[Doc]:
    """Return all containers of a pod, those that run first included."""
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


def environment(container: Doc) -> dict[str, str]:
    """Return the variables that have a value of their own."""
    return {entry["name"]: entry["value"] for entry in container.get("env", []) if "value" in entry}


def golden_text(name: str) -> str:
    """Return a render as it is kept: without what stands in files of its own (rules and dashboards)."""
    kept = []
    for doc in render(name):
        if doc["kind"] == "PrometheusRule":
            kept.append({**doc, "spec": "files/alerts.yaml"})
        elif "-dashboard-" in doc["metadata"]["name"]:
            kept.append({**doc, "data": "dashboards/"})
        else:
            kept.append(doc)
    return yaml.safe_dump_all(kept, sort_keys=True, allow_unicode=True, width=120)


if __name__ == "__main__":
    for environment_name in VALUES:
        (GOLDEN / f"{environment_name}.yaml").write_text(golden_text(environment_name), "utf-8")
