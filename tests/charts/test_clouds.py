"""What the pages for operators say of the chart is true of it: values, Helm's options, names of objects.

A page's values are rendered with the files and options of its own `helm upgrade`. What the clouds' own programs know is
in the record of `tests.charts.cloud_programs`.
"""

import json
import re
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.charts.cloud_programs import (
    CLOUDS,
    PAGES,
    PROGRAMS,
    READ_BY_HAND,
    blocks,
    called,
    commands,
    known,
    options_of,
    simple_commands,
)
from tests.charts.rendering import CHART, NAME, ROOT, VALUES, Doc, helm, objects, render
from tests.charts.test_render import TYPES, validated

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


def upgrade_of(page: Path) -> list[str]:
    """Return the words of the `helm upgrade --install` of our chart."""
    (words,) = [words for words in commands(page, "helm") if "charts/bank-chatbot" in words]
    return words


def rendered(page: Path, folder: Path, *more: str) -> list[Doc]:
    """Render as the page's own command does, with the page's own files."""
    for name, text in files(page).items():
        (folder / name).write_text(text, "utf-8")
    arguments: list[str] = []
    words = upgrade_of(page)
    for option, value in pairwise(words):
        if option == "-f":
            arguments += ["-f", str(ROOT / value if value.startswith("charts/") else folder / value)]
        elif option in {"--set", "--set-string"}:
            arguments += [option, value]
    completed = helm(4, "template", "bank", str(CHART), "--namespace", "bank", *arguments, *more)
    assert completed.returncode == 0, f"{page.name}: {completed.stderr}"
    return objects(completed.stdout)


@pytest.mark.parametrize("page", CLOUDS, ids=lambda page: page.stem)
def test_a_cloud_s_values_render_to_valid_objects(page: Path, tmp_path: Path) -> None:
    docs = rendered(page, tmp_path)
    core = [doc for doc in docs if doc["kind"] not in CUSTOM_KINDS]
    completed = validated(core)
    assert completed.returncode == 0, completed.stderr
    assert {doc["metadata"]["name"] for doc in docs if doc["kind"] == "StatefulSet"} >= {f"{NAME}-llm-h100"}
    assert "registry.example.com" not in json.dumps(
        [d["spec"] for d in docs if d["kind"] in {"Deployment", "StatefulSet"}]
    )


def test_what_each_cloud_s_page_says_of_it_is_in_its_render(tmp_path: Path) -> None:
    docs = {page.stem: rendered(page, tmp_path) for page in CLOUDS}

    def classes(cloud: str) -> set[object]:
        pods = [
            d["spec"]["template"]["spec"]
            for d in docs[cloud]
            if d["kind"] == "StatefulSet" and "-llm-" in d["metadata"]["name"]
        ]
        return {pod.get("runtimeClassName") for pod in pods}

    assert (classes("gke"), classes("eks")) == ({None}, {None})
    assert (classes("aks"), classes("on-premises")) == ({"nvidia"}, {"nvidia"})
    routes = {cloud: [d for d in docs[cloud] if d["kind"] == "HTTPRoute"] for cloud in docs}
    assert all("timeouts" not in rule for d in routes["gke"] for rule in d["spec"]["rules"])
    assert all("timeouts" in rule for cloud in ("eks", "aks") for d in routes[cloud] for rule in d["spec"]["rules"])
    # GKE cuts a stream after 30 s unless the policy for the route's own Service says otherwise.
    (policy,) = [d for d in docs["gke"] if d["kind"] == "GCPBackendPolicy"]
    (backend,) = routes["gke"][0]["spec"]["rules"][0]["backendRefs"]
    assert policy["spec"]["targetRef"]["name"] == backend["name"]
    assert policy["spec"]["default"]["timeoutSec"] > 180


def test_values_of_other_pages_render_over_production_s(tmp_path: Path) -> None:
    found = 0
    for page in (page for page in PAGES if page not in CLOUDS):
        for name, text in files(page).items():
            if name.startswith("values-"):
                (tmp_path / name).write_text(text, "utf-8")
                docs = render("values-prod", "-f", str(tmp_path / name))
                assert {doc["kind"] for doc in docs} >= {"Deployment", "NetworkPolicy"}
                found += 1
    assert found == 8


def documented_upgrades() -> list[list[str]]:
    """Return the arguments of the pages' `helm upgrade` of our chart that name no files of their own."""
    found = [words for page in PAGES if page not in CLOUDS for words in commands(page, "helm")]
    return [
        [word for option in pairwise(words) if option[0].startswith("--set") for word in option]
        for words in found
        if words[0] == "upgrade" and "charts/bank-chatbot" in words and "-f" not in words
    ]


def test_every_upgrade_of_a_page_renders_over_production_s() -> None:
    given = documented_upgrades()
    assert len(given) > 4
    for arguments in given:
        render("values-prod", *arguments)


def test_a_model_on_trial_takes_one_gpu_of_the_primary_s_kind() -> None:
    (arguments,) = [given for given in documented_upgrades() if "llm.pools.next.group=canary" in given]
    docs = {(d["kind"], d["metadata"]["name"]): d["spec"] for d in render("values-prod", *arguments) if "spec" in d}
    trial, primary = (docs["StatefulSet", f"{NAME}-llm-{pool}"]["template"]["spec"] for pool in ("next", "h100"))
    assert trial["nodeSelector"] == primary["nodeSelector"]
    scaler = docs["ScaledObject", f"{NAME}-llm-next"]
    assert (scaler["minReplicaCount"], scaler["fallback"]["replicas"]) == (1, 1)
    assert ("Deployment", f"{NAME}-llm-next-placeholder") not in docs


def unknown(program: str, words: list[str]) -> str:
    """Return what a program does not know of a command's words; empty where it knows all."""
    name, options = known(program, words)
    odd = sorted(options_of(words) - options)
    return "" if name and not odd else f"{program} {' '.join(words)}: {f'no {odd}' if name else 'no such command'}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_and_option_is_one_of_its_program(page: Path) -> None:
    odd = [
        unknown(words[0], words[1:])
        for words in called(page)
        if words[0] in PROGRAMS and words[:2] != ["helm", "diff"]  # a plugin
    ]
    assert [text for text in odd if text] == []


def test_the_clouds_pages_call_no_program_that_nobody_asked() -> None:
    programs = {words[0] for page in CLOUDS for words in called(page)}
    assert programs - PROGRAMS - {"for", "done"} == set()


def test_what_was_read_by_hand_is_only_what_the_pages_still_say() -> None:
    assert {name.partition(" ")[0] for name in READ_BY_HAND} == {"gcloud", "eksctl"}, "ask a program that can be had"
    used: dict[str, set[str]] = {}
    for program in ("gcloud", "eksctl"):
        for words in (words for page in PAGES for words in commands(page, program)):
            (name,) = [n for n in READ_BY_HAND if f"{program} {' '.join(words)} ".startswith(f"{n} ")]
            used.setdefault(name, set()).update(options_of(words))
    assert used == {name: set(options.split()) for name, options in READ_BY_HAND.items()}


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
    for words in commands(page, "kubectl"):
        text = " ".join(words)
        for kind, name in re.findall(rf"\b({'|'.join(KINDS)})[ /]((?:data-)?{NAME}[-a-z0-9]*+)(?![A-Z…])", text):
            assert (KINDS[kind], name) in there, f"{page.name}: kubectl {text}"
        for name in re.findall(rf"exec (?:-i )?({NAME}[-a-z0-9]*)-0\b", text):
            assert ("StatefulSet", name) in there, f"{page.name}: kubectl {text}"


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
    named = re.findall(r"`([a-z][A-Za-z]*(?:\.[A-Za-z][A-Za-z0-9]*)+)(?::[^`]*|=[^`]*)?`", text)
    set_by = [
        value.partition("=")[0]
        for words in commands(page, "helm")
        for value in words
        if re.match(r"[a-z]\w*\.[\w.]+=", value)
    ]
    for name in [name for name in (*named, *set_by) if name.partition(".")[0] in SCHEMA["properties"]]:
        if not re.search(r"\.(yaml|md|py|json|log)$|^tls\.(crt|key)$", name):
            assert is_value(name.split("."), SCHEMA), f"{page.name}: {name}"


def test_the_driver_s_minimum_is_that_of_the_pinned_cuda() -> None:
    lock = (ROOT / "requirements/llm-gpu.lock").read_text("utf-8")
    assert "nvidia-cuda-runtime==13.0." in lock, "another CUDA: NVIDIA's table of minimum drivers says which"
    text = (ROOT / "docs/models.md").read_text("utf-8")
    assert "CUDA 13.0: the node's driver must be of release 580 (580.65.06) or later" in text
    assert all("580 or later" in page.read_text("utf-8") for page in CLOUDS)


def test_the_comparison_detects_what_is_not_there() -> None:
    assert is_value(["llm", "poolDefaults", "runtimeClassName"], SCHEMA)
    assert is_value(["llm", "pools", "X", "scaling", "share"], SCHEMA)
    assert not is_value(["llm", "poolDefaults", "runtimeClas"], SCHEMA)
    assert not is_value(["networkPolicy", "egress", "mail"], SCHEMA)
    for program, right, wrong in (
        ("helm", "upgrade --install x y", "upgrade --instal x y"),
        ("helm", "repo add x y", "repo ad x y"),
        ("kubectl", "-n bank rollout status deployment/x --timeout=30m", "-n bank rollout status x --time-out=30m"),
        ("kubectl", "get nodes -L x", "gett nodes"),
        ("kubectl", "-n bank rollout status x", "-n bank rollout stat x"),
        ("az", "aks nodepool add --gpu-driver none", "aks nodepool add --skip-gpu-driver"),
        ("az", "acr login --name bank", "acr log-in --name bank"),
        ("aws", "ecr create-repository --repository-name x", "ecr create-repository --name x"),
        ("docker", "login --password-stdin x", "login --stdin x"),
        ("gcloud", "container clusters create bank --region x", "container cluster create bank --region x"),
        ("eksctl", "create cluster -f x", "create cluster --file x"),
    ):
        assert unknown(program, right.split()) == ""
        assert unknown(program, wrong.split()) != ""
    loop = "for a in b c; do aws ecr get-login-password | docker login --username AWS x > y; done"
    assert list(simple_commands(loop))[1:3] == [
        ["aws", "ecr", "get-login-password"],
        ["docker", "login", "--username", "AWS", "x"],
    ]
