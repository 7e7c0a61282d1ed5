"""A lost zone and sold-out GPUs, by the rules of the scheduler's documentation applied to the rendered pods.

The rules are those of "Pod Topology Spread Constraints" and "Taints and Tolerations" of Kubernetes 1.36: a constraint
counts matching pods by domain over the nodes that its `nodeAffinityPolicy` (Honor unless set) and `nodeTaintsPolicy`
(Ignore unless set) leave; `DoNotSchedule` takes a node only where its domain has at most `maxSkew` more than the
emptiest, `ScheduleAnyway` prefers the emptiest.
"""

import copy
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from tests.charts.rendering import NAME, Doc, named, render

ZONE, HOST = "topology.kubernetes.io/zone", "kubernetes.io/hostname"
LOST = {"key": "node.kubernetes.io/unreachable", "effect": "NoSchedule"}
GPU = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}


@dataclass
class Node:
    """A node with its room for pods of the kind that is placed."""

    name: str
    zone: str
    room: int
    taints: Sequence[Doc] = ()
    labels: dict[str, str] = field(default_factory=dict)
    pods: int = 0

    def domain(self, key: str) -> str:
        return {ZONE: self.zone, HOST: self.name}[key]


def tolerates(spec: Doc, taint: Doc) -> bool:
    return any(
        t.get("key", taint["key"]) == taint["key"]
        and t.get("effect", taint["effect"]) == taint["effect"]
        and (t.get("operator", "Equal") == "Exists" or t.get("value", "") == taint.get("value", ""))
        for t in spec.get("tolerations", [])
    )


def selected(spec: Doc, node: Node) -> bool:
    return all(node.labels.get(key) == value for key, value in spec.get("nodeSelector", {}).items())


def reachable(spec: Doc, node: Node) -> bool:
    return all(tolerates(spec, taint) for taint in node.taints)


def counts(spec: Doc, constraint: Doc, nodes: Sequence[Node]) -> Counter[str]:
    """Return the pods by domain, with a zero for each domain that has none."""
    counted: Counter[str] = Counter()
    for node in nodes:
        if constraint.get("nodeAffinityPolicy", "Honor") == "Honor" and not selected(spec, node):
            continue
        if constraint.get("nodeTaintsPolicy", "Ignore") == "Honor" and not reachable(spec, node):
            continue
        counted[node.domain(constraint["topologyKey"])] += node.pods
    return counted


def place(spec: Doc, nodes: Sequence[Node]) -> bool:
    """Place one pod; return whether a node was found."""
    feasible = [n for n in nodes if n.pods < n.room and selected(spec, n) and reachable(spec, n)]
    preferred = []
    for constraint in spec["topologySpreadConstraints"]:
        counted, key = counts(spec, constraint, nodes), constraint["topologyKey"]
        if constraint["whenUnsatisfiable"] == "DoNotSchedule":
            least = min(counted.values(), default=0)
            feasible = [n for n in feasible if counted[n.domain(key)] + 1 - least <= constraint["maxSkew"]]
        else:
            preferred.append((key, counted))
    if not feasible:
        return False
    min(feasible, key=lambda n: [counted[n.domain(key)] for key, counted in preferred]).pods += 1
    return True


def pending(spec: Doc, nodes: Sequence[Node], *, wanted: int) -> int:
    """Return how many of the pods find no node."""
    return wanted - sum(place(spec, nodes) for _ in range(wanted))


def spec_of(name: str, kind: str, component: str) -> Doc:
    spec = named(render(name), kind, f"{NAME}-{component}")["spec"]["template"]["spec"]
    return copy.deepcopy(spec)


WEB = [("Deployment", component) for component in ("chatbot", "ingest", "ingest-worker")]


def web_nodes(*, lost: str | None = None) -> list[Node]:
    """Return three zones of web nodes and one of a zone that has GPU nodes only."""
    nodes = [
        Node(f"{zone}{n}", zone, room=6, taints=(LOST,) if zone == lost else ()) for zone in "abc" for n in range(2)
    ]
    return [*nodes, Node("d0", "d", room=6, taints=(GPU,))]


@pytest.mark.parametrize(("kind", "component"), WEB)
def test_without_a_zone_every_web_pod_has_a_node_and_with_all_zones_none_has_two_more_than_another(
    kind: str, component: str
) -> None:
    spec = spec_of("values-prod", kind, component)
    assert spec["topologySpreadConstraints"][0]["whenUnsatisfiable"] == "DoNotSchedule"
    nodes = web_nodes()
    assert pending(spec, nodes, wanted=8) == 0
    by_zone = Counter({node.zone: 0 for node in nodes if node.zone != "d"})
    for node in nodes:
        by_zone[node.zone] += node.pods
    assert by_zone.pop("d", 0) == 0
    assert max(by_zone.values()) - min(by_zone.values()) <= 1
    assert pending(spec, web_nodes(lost="c"), wanted=8) == 0


def test_a_spread_that_counts_lost_zones_would_freeze_production() -> None:
    spec = spec_of("values-prod", "Deployment", "chatbot")
    for constraint in spec["topologySpreadConstraints"]:
        del constraint["nodeTaintsPolicy"]
    assert pending(spec, web_nodes(lost="c")[:-1], wanted=8) == 6
    assert pending(spec, web_nodes(), wanted=8) > 0, "a zone that has only GPU nodes counts too"


def gpu_nodes(label: str) -> list[Node]:
    """Return a zone with eight GPUs, one with two, and one where the cloud sells none."""
    return [
        Node(f"{zone}{n}", zone, room=1, taints=(GPU,), labels={"bank-chatbot/pool": label})
        for zone, sold in (("a", 8), ("b", 2))
        for n in range(sold)
    ]


@pytest.mark.parametrize("pool", ["h100", "l4"])
def test_sold_out_gpus_of_a_zone_keep_no_server_from_those_of_another(pool: str) -> None:
    spec = spec_of("values-prod", "StatefulSet", f"llm-{pool}")
    assert pending(spec, gpu_nodes(pool), wanted=10) == 0
    assert pending(spec, [*gpu_nodes(pool), Node("c0", "c", 0, (GPU,), {"bank-chatbot/pool": pool})], wanted=10) == 0
    spec["topologySpreadConstraints"][0]["whenUnsatisfiable"] = "DoNotSchedule"
    assert pending(spec, gpu_nodes(pool), wanted=10) > 0


def test_a_tier_s_own_spread_goes_before_that_of_all() -> None:
    docs = render("values-prod", "--set", "chatbot.zoneSpread=ScheduleAnyway")
    zones = {
        component: named(docs, "Deployment", f"{NAME}-{component}")["spec"]["template"]["spec"][
            "topologySpreadConstraints"
        ][0]["whenUnsatisfiable"]
        for _, component in WEB
    }
    assert zones == {"chatbot": "ScheduleAnyway", "ingest": "DoNotSchedule", "ingest-worker": "DoNotSchedule"}
