"""Renders of the chart by real Helm, and functions that read them.

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
"""The prefix of all objects' names: the release's name and the chart's."""
RELEASE = ("bank", "--namespace", "bank")
ENVIRONMENTS = ("dev", "staging", "prod", "airgapped")
VALUES = ("values", *(f"values-{name}" for name in ENVIRONMENTS))
GOLDEN_VALUES = ("values", "values-prod")
"""With all stores in the cluster, and with none."""
SCALED = ("--set", "scaling.engine=hpa")
TLS = ("--set", "tls.enabled=true,tls.issuer.name=bank-ca,tls.gatewayCa=bank-ca")
MESH = (
    "--set",
    "istio.enabled=true",
    "--set",
    "istio.gatewayPrincipals={cluster.local/ns/gateway/sa/gateway}",
    "--set",
    "istio.prometheusPrincipals={cluster.local/ns/monitoring/sa/prometheus}",
    "--set-json",
    'networkPolicy.egress.mesh.to=[{"namespaceSelector":{"matchLabels":{"kubernetes.io/metadata.name":"istio-system"}}}]',
)
SEPARATE = ("--set", "accounts.separate=true")

HOME = {"HOME": str(PARTS / "home"), "PATH": "/usr/bin:/bin", "GOGC": "400"}
"""What programs are started with. In Go they collect garbage a fourth as often: a third less of the processor."""

Doc = dict[str, Any]
"""A Kubernetes object as YAML has it."""


def tool(name: str) -> str:
    """Return the path of a program that scripts/chart_parts installs; without it the test is skipped."""
    path = PARTS / name
    if not path.exists():
        pytest.skip(f"{path.relative_to(ROOT)} is missing: scripts/chart_parts installs it")
    return str(path)


def helm(major: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Helm 3 or 4 with a home folder of its own."""
    return subprocess.run(  # noqa: S603
        [tool(f"helm{major}"), *arguments], env=HOME, capture_output=True, text=True, check=False, timeout=60
    )


def values_of(name: str) -> list[str]:
    """Return the arguments for one of the chart's own values files."""
    return [] if name == "values" else ["-f", str(CHART / f"{name}.yaml")]


def template(name: str, *more: str, major: int = 4) -> subprocess.CompletedProcess[str]:
    """Render with one of the chart's values files and more arguments of Helm."""
    return helm(major, "template", RELEASE[0], str(CHART), *RELEASE[1:], *values_of(name), *more)


@cache
def render(name: str = "values", *more: str, major: int = 4) -> Sequence[Doc]:
    """Return the objects of a render that must succeed."""
    completed = template(name, *more, major=major)
    assert completed.returncode == 0, completed.stderr
    return objects(completed.stdout)


def objects(rendered: str) -> list[Doc]:
    """Return the objects of a rendered text, read by libyaml: ten times as fast as YAML's reader in Python."""
    return [doc for doc in yaml.load_all(rendered, Loader=yaml.CSafeLoader) if doc]


def named(docs: Sequence[Doc], kind: str, name: str) -> Doc:
    """Return the object of that kind and name."""
    matching = [doc for doc in docs if doc["kind"] == kind and doc["metadata"]["name"] == name]
    assert len(matching) == 1, f"{kind} {name}: {len(matching)}"
    return matching[0]


def of_kind(docs: Sequence[Doc], *kinds: str) -> list[Doc]:
    """Return all objects of the kinds."""
    return [doc for doc in docs if doc["kind"] in kinds]


def pods(docs: Sequence[Doc]) -> Iterator[tuple[str, Doc]]:
    """Yield (kind/name, pod template) of every object that makes pods."""
    for doc in docs:
        spec = doc.get("spec", {})
        template = {"Pod": doc, "CronJob": spec.get("jobTemplate", {}).get("spec", {}).get("template")}.get(
            doc["kind"], spec.get("template") if doc["kind"] in {"Deployment", "StatefulSet", "Job"} else None
        )
        if template:
            yield f"{doc['kind']}/{doc['metadata']['name']}", template


def containers(pod: Doc) -> list[Doc]:
    """Return all containers of a pod, init containers included."""
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


def environment(container: Doc) -> dict[str, str]:
    """Return the environment variables whose value is in the pod, not in a Secret."""
    return {entry["name"]: entry["value"] for entry in container.get("env", []) if "value" in entry}


def golden_text(name: str) -> str:
    """Return a render as a golden file: without alert rules and dashboards, which are files of the chart already."""
    objects = []
    for doc in render(name):
        if doc["kind"] == "PrometheusRule":
            objects.append({**doc, "spec": "files/alerts.yaml"})
        elif "-dashboard-" in doc["metadata"]["name"]:
            objects.append({**doc, "data": "dashboards/"})
        else:
            objects.append(doc)
    return yaml.safe_dump_all(objects, sort_keys=True, allow_unicode=True, width=120)


if __name__ == "__main__":
    for environment_name in GOLDEN_VALUES:
        (GOLDEN / f"{environment_name}.yaml").write_text(golden_text(environment_name), "utf-8")
