"""Pairs of renders, before and after an upgrade: nothing that the API server refuses, no restart without a reason, no
replicas lost; and what only a cluster knows is asked there, of a scripted API server.
"""

import json
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from tests.charts.rendering import (
    CHART,
    GOLDEN_VALUES,
    NAME,
    RELEASE,
    Doc,
    helm,
    objects,
    of_kind,
    render,
    template,
    values_of,
)
from tests.charts.replies import scripted_replies

Objects = dict[tuple[str, str], Doc]
STATEFUL_MUTABLE = {
    "replicas", "ordinals", "template", "updateStrategy", "persistentVolumeClaimRetentionPolicy", "minReadySeconds",
    "revisionHistoryLimit",
}  # fmt: skip
WORKLOADS = ("Deployment", "StatefulSet")


def by_name(docs: Sequence[Doc]) -> Objects:
    return {(doc["kind"], doc["metadata"]["name"]): doc for doc in docs}


def in_both(before: Sequence[Doc], after: Sequence[Doc]) -> Iterator[tuple[str, Doc, Doc]]:
    """Yield the objects that are there before and after."""
    old = by_name(before)
    for key, doc in by_name(after).items():
        if key in old:
            yield "/".join(key), old[key], doc


def immutable(doc: Doc) -> Doc:
    """Return the part of an object that no update may change."""
    spec = doc.get("spec", {})
    match doc["kind"]:
        case "StatefulSet":
            return {key: value for key, value in spec.items() if key not in STATEFUL_MUTABLE}
        case "Deployment":
            return {"selector": spec["selector"]}
        case "Job":
            return {key: spec.get(key) for key in ("template", "selector", "completions", "completionMode")}
        case "PersistentVolumeClaim":
            return {key: value for key, value in spec.items() if key != "resources"}
        case "PriorityClass":
            return {key: doc.get(key) for key in ("value", "preemptionPolicy")}
        case "Service":
            return {"clusterIP": spec.get("clusterIP") == "None"}
        case _:
            return {}


def refused(before: Sequence[Doc], after: Sequence[Doc]) -> set[str]:
    """Return the objects whose update the API server refuses; a claim may only grow, and only of itself."""
    changed = {name for name, old, new in in_both(before, after) if immutable(old) != immutable(new)}
    for name, old, new in in_both(before, after):
        sizes = [
            int(doc["spec"]["resources"]["requests"]["storage"].removesuffix("Gi"))
            for doc in (old, new)
            if doc["kind"] == "PersistentVolumeClaim"
        ]
        if sizes != sorted(sizes):
            changed.add(name)
    return changed


def restarted(before: Sequence[Doc], after: Sequence[Doc]) -> set[str]:
    """Return the workloads whose pods are replaced."""
    return {
        name
        for name, old, new in in_both(before, after)
        if old["kind"] in WORKLOADS and old["spec"]["template"] != new["spec"]["template"]
    }


def dropped(before: Sequence[Doc], after: Sequence[Doc]) -> set[str]:
    """Return the workloads that have fewer replicas at once: a `replicas` that goes is set to 1."""
    return {
        name
        for name, old, new in in_both(before, after)
        if old["kind"] in WORKLOADS and new["spec"].get("replicas", 1) < old["spec"].get("replicas", 1)
    }


def scaled(docs: Sequence[Doc]) -> set[tuple[str, str]]:
    """Return the workloads that a scaler owns."""
    refs = [doc["spec"]["scaleTargetRef"] for doc in of_kind(docs, "ScaledObject", "HorizontalPodAutoscaler")]
    return {(ref["kind"], ref["name"]) for ref in refs}


def capped(before: Sequence[Doc], after: Sequence[Doc]) -> set[str]:
    """Return the workloads whose scaler allows fewer: what runs beyond that ends at once, whatever its `behavior`."""

    def most(docs: Sequence[Doc]) -> dict[str, int]:
        scalers = [doc["spec"] for doc in of_kind(docs, "ScaledObject", "HorizontalPodAutoscaler")]
        return {s["scaleTargetRef"]["name"]: s.get("maxReplicas") or s["maxReplicaCount"] for s in scalers}

    old, new = most(before), most(after)
    return {name.removeprefix(f"{NAME}-") for name in old if new.get(name, old[name]) < old[name]}


def chart_with(folder: Path, **fields: str) -> Path:
    """Return a copy of the chart with other fields of its Chart.yaml."""
    shutil.copytree(CHART, folder / "chart")
    described = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))
    (folder / "chart/Chart.yaml").write_text(yaml.safe_dump({**described, **fields}), "utf-8")
    return folder / "chart"


def rendered(chart: Path, name: str) -> list[Doc]:
    completed = helm(4, "template", RELEASE[0], str(chart), *RELEASE[1:], *values_of(name))
    assert completed.returncode == 0, completed.stderr
    return objects(completed.stdout)


@pytest.mark.parametrize("name", GOLDEN_VALUES)
def test_a_new_chart_alone_restarts_nothing(name: str, tmp_path: Path) -> None:
    before, after = render(name), rendered(chart_with(tmp_path, version="0.1.1"), name)
    assert before != after, "the charts' labels say which"
    assert refused(before, after) == set()
    assert restarted(before, after) == set()


@pytest.mark.parametrize("name", GOLDEN_VALUES)
def test_a_new_release_restarts_what_has_a_new_image_and_no_store(name: str, tmp_path: Path) -> None:
    before, after = render(name), rendered(chart_with(tmp_path, version="0.2.0", appVersion="0.2.0"), name)
    assert refused(before, after) == set()
    stores = {f"StatefulSet/{NAME}-{store}" for store in ("qdrant", "redis", "postgres")}
    assert restarted(before, after) == {"/".join(key) for key in by_name(before) if key[0] in WORKLOADS} - stores
    assert dropped(before, after) == set()


CANARY = "chatbot.canary.enabled=true,chatbot.canary.tag=0.2.0"
# (values file, arguments before, arguments after, components that restart)
CHANGES: list[tuple[str, str, str, set[str]]] = [
    ("values", "", "llm.pools.h100.maxReplicas=16", set()),
    ("values", "", "chatbot.scaling.maxReplicas=24", {"chatbot"}),  # each one's share of the limits while Redis is away
    ("values", "", "weights.fetch.environment.HTTPS_PROXY=http://other:3128", set()),
    ("values", "", "weights.size=400Gi", set()),
    ("values", "", "monitoring.serviceMonitors.interval=30s", set()),
    ("values", "", "llm.pools.h100.placeholders=3", set()),
    ("values", "", "images.redis.tag=8.1.9", {"redis"}),
    ("values", "", "scaling.engine=hpa", set()),
    ("values", "scaling.engine=hpa", "", set()),
    ("values", "", "scaling.engine=none", {"chatbot"}),
    ("values-prod", "", f"{CANARY},chatbot.canary.weight=5,chatbot.canary.replicas=1", set()),
    ("values-prod", CANARY, f"{CANARY},chatbot.canary.weight=25,chatbot.canary.replicas=6", set()),
    ("values-prod", f"{CANARY},chatbot.canary.weight=25,chatbot.canary.replicas=6", "", set()),
    ("values-airgapped", "", "scaling.engine=keda,scaling.prometheus=http://p:9090", set()),
    ("values-airgapped", "", "scaling.engine=hpa,scaling.prometheus=http://p:9090", set()),
]


@pytest.mark.parametrize(("name", "before", "after", "expected"), CHANGES, ids=lambda part: str(part) or "-")
def test_a_change_of_values_is_accepted_restarts_what_it_must_and_drops_no_replica(
    name: str, before: str, after: str, expected: set[str]
) -> None:
    old, new = (render(name, *(["--set", text] if text else [])) for text in (before, after))
    assert old != new
    assert refused(old, new) == set()
    assert {where.partition(f"{NAME}-")[2] for where in restarted(old, new)} == expected
    assert dropped(old, new) == set()
    # docs/upgrades.md, "Scalers": a fixed size is the one change here that ends what runs.
    fixed = {"chatbot", "ingest-worker", "llm-h100"} if after == "scaling.engine=none" else set()
    assert capped(old, new) == fixed


@pytest.mark.parametrize("name", ["values-staging", "values-prod"])
@pytest.mark.parametrize("engine", ["keda", "hpa", "none"])
def test_replicas_that_a_scaler_may_own_are_in_no_manifest(name: str, engine: str) -> None:
    awake = ["--set", "llm.pools.l4.minReplicas=1,ingest.worker.scaling.minReplicas=1"] if "staging" in name else []
    docs = render(name, "--set", f"scaling.engine={engine},scaling.prometheus=http://p:9090", *awake)
    owned = scaled(docs)
    for key, doc in by_name(docs).items():
        if key[0] in WORKLOADS:
            assert ("replicas" in doc["spec"]) is (key not in owned), key
    tiers = {name.removeprefix(f"{NAME}-").partition("-")[0] for _, name in owned}
    assert {"chatbot", "llm"} <= tiers
    for doc in of_kind(docs, "HorizontalPodAutoscaler"):
        # Otherwise KEDA's webhook refuses its own object as long as this one is there.
        assert doc["metadata"]["annotations"]["validations.keda.sh/hpa-ownership"] == "false"


def test_the_same_release_in_another_namespace_shares_no_object_of_the_cluster() -> None:
    completed = helm(4, "template", "bank", str(CHART), "--namespace", "other")
    classes = {doc["metadata"]["name"] for doc in of_kind(objects(completed.stdout), "PriorityClass")}
    assert classes
    assert classes & {doc["metadata"]["name"] for doc in of_kind(render(), "PriorityClass")} == set()


@pytest.mark.parametrize("version", ["0.1.0+298d1ee42908", f"0.1.0+{'5d9b388dad62' * 5}"])
def test_a_chart_version_with_flux_s_suffix_is_a_valid_label(version: str, tmp_path: Path) -> None:
    docs = rendered(chart_with(tmp_path, version=version), "values")
    values = {value for doc in docs for value in doc["metadata"]["labels"].values()}
    assert {
        value for value in values if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", value)
    } == set()
    assert any(value.startswith("bank-chatbot-0.1.0_") for value in values)


# What no upgrade can do, and `volume-differs` says before anything is applied: another volume for what has one.
DEV_TO_STAGING = {
    f"PersistentVolumeClaim/{NAME}-weights",
    f"PersistentVolumeClaim/{NAME}-blobs",
    *(f"StatefulSet/{NAME}-{store}" for store in ("qdrant", "redis", "postgres")),
}


def canonical(size: str) -> str:
    """Return a size as the API server stores it: by the largest unit of which it is a whole number."""
    number, units = int(size[:-2]), ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"]
    unit = units.index(size[-2:])
    while number % 1024 == 0:
        number, unit = number // 1024, unit + 1
    return f"{number}{units[unit]}"


def stored(doc: Doc) -> Doc:
    """Return an object with the sizes of its volumes as the API server stores them."""
    text = re.sub(r'("storage": )"(\d+\w+)"', lambda size: f'{size[1]}"{canonical(size[2])}"', json.dumps(doc))
    return dict(json.loads(text))


@contextmanager
def cluster(docs: Sequence[Doc], folder: Path) -> Iterator[list[str]]:
    """Serve a cluster that has these volumes and StatefulSets, as far as Helm's `lookup` asks; yields its arguments."""
    resources = {
        "/api/v1": ("persistentvolumeclaims", "PersistentVolumeClaim"),
        "/apis/apps/v1": ("statefulsets", "StatefulSet"),
    }
    apps = {"groupVersion": "apps/v1", "version": "v1"}
    group = {"name": "apps", "versions": [apps], "preferredVersion": apps}
    paths: dict[str, Doc] = {
        "/version": {"major": "1", "minor": "36", "gitVersion": "v1.36.0"},
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": [group]},
    }
    for prefix, (plural, kind) in resources.items():
        version = prefix.removeprefix("/apis/").removeprefix("/api/")
        verbs = ["get", "list", "create", "patch", "update"]
        paths[prefix] = {
            "kind": "APIResourceList",
            "groupVersion": version,
            "resources": [{"name": plural, "kind": kind, "namespaced": True, "singularName": "", "verbs": verbs}],
        }
        for doc in of_kind(docs, kind):
            paths[f"{prefix}/namespaces/bank/{plural}/{doc['metadata']['name']}"] = stored(doc)

    with scripted_replies({path: (200, body) for path, body in paths.items()}) as url:
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": url}}],
            "users": [{"name": "u", "user": {}}],
        }
        (folder / "kubeconfig").write_text(json.dumps(config), "utf-8")
        yield ["--dry-run=server", "--kubeconfig", str(folder / "kubeconfig")]


def upgrade(name: str, arguments: Sequence[str]) -> str:
    """Return Helm's message about an upgrade to a values file; empty where it renders."""
    completed = template(name, *arguments)
    return completed.stderr if completed.returncode else ""


def test_a_volume_that_cannot_change_stops_an_upgrade_before_anything_is_applied(tmp_path: Path) -> None:
    assert refused(render("values-dev"), render("values-staging")) == DEV_TO_STAGING
    for where in sorted(DEV_TO_STAGING):
        volumes = [doc for doc in render("values-dev") if f"{doc['kind']}/{doc['metadata']['name']}" == where]
        with cluster(volumes, tmp_path) as arguments:
            message = upgrade("values-staging", arguments)
            assert "volume-differs: " in message
            assert where.rpartition("/")[2] in message


@pytest.mark.parametrize(
    ("volume", "phase", "size", "refuses"),
    [
        ("weights", "Bound", "600Gi", False),
        ("weights", "Bound", "1Ti", False),
        ("weights", "Bound", "409600Mi", True),
        ("weights", "Pending", "600Gi", True),
        ("weights", "Pending", "512000Mi", False),
        ("ingest.blobs", "Bound", "400Gi", True),
    ],
)
def test_a_claim_grows_once_it_is_bound_and_never_shrinks(
    volume: str, phase: str, size: str, *, refuses: bool, tmp_path: Path
) -> None:
    given = ["--set", "weights.size=500Gi,ingest.blobs.size=500Gi"]
    docs = [{**doc, "status": {"phase": phase}} for doc in render("values-prod", *given)]
    with cluster(docs, tmp_path) as arguments:
        message = upgrade("values-prod", [*arguments, *given, "--set", f"{volume}.size={size}"])
    assert (f"volume-differs: the claim {NAME}-{volume.rpartition('.')[2]} has 500Gi" in message) is refuses


@pytest.mark.parametrize("before", ["", "llm.pools.h100.cache.claim=true"])
def test_a_pool_s_cache_volume_cannot_change(before: str, tmp_path: Path) -> None:
    claims, none = ["--set", "llm.pools.h100.cache.claim=true"], ["--set", "llm.pools.h100.cache.claim=false"]
    given, wanted = (claims, none) if before else (none, claims)
    docs = render("values-prod", *given)
    assert refused(docs, render("values-prod", *wanted)) == {f"StatefulSet/{NAME}-llm-h100"}
    with cluster(docs, tmp_path) as arguments:
        message = upgrade("values-prod", [*arguments, *wanted])
        assert f"volume-differs: the servers of {NAME}-llm-h100 have" in message
        assert "volume-differs" not in upgrade("values-prod", [*arguments, *given])


@pytest.mark.parametrize("name", GOLDEN_VALUES)
def test_an_upgrade_with_the_same_volumes_is_rendered(name: str, tmp_path: Path) -> None:
    with cluster(render(name), tmp_path) as arguments:
        # It is rendered; the scripted API server knows too little for what Helm does then.
        assert "unable to build kubernetes objects" in upgrade(name, arguments)
