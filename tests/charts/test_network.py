"""NetworkPolicies allow the design's flows and no other; `permits` evaluates them as Kubernetes does."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations

import pytest
import yaml

from tests.charts.rendering import CHART, NAME, VALUES, Doc, environment, named, of_kind, pods, render

# The flows of docs/architecture.md: (from, to, port) between parts of a release with all its stores.
FLOWS = {
    *((c, "llm-h100", 8000) for c in ("chatbot",)),
    *((c, "redis", 6379) for c in ("chatbot", "ingest", "ingest-worker")),
    *((c, "qdrant", 6333) for c in ("chatbot", "ingest", "ingest-worker", "qdrant-snapshot")),
    *((c, "postgres", 5432) for c in ("chatbot", "ingest", "ingest-worker")),
    ("test", "chatbot", 8000),
    ("test", "ingest", 8001),
}
PORTS = {8000, 8001, 6333, 6379, 5432, 9121, 443, 53}


@dataclass(frozen=True, slots=True)
class Component:
    """A component of the release and the labels of its pods."""

    name: str
    labels: tuple[tuple[str, str], ...]

    def matches(self, selector: Doc) -> bool:
        """Return whether a label selector selects the component's pods."""
        labels = dict(self.labels)
        if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
            return False
        for term in selector.get("matchExpressions", []):
            assert term["operator"] == "In"
            if labels.get(term["key"]) not in term["values"]:
                return False
        return True


def components(docs: list[Doc]) -> list[Component]:
    """Return the components that have pods."""
    by_name = {}
    for _, pod in pods(docs):
        labels = pod["metadata"]["labels"]
        name = labels["app.kubernetes.io/component"]
        by_name[name] = Component(name, tuple(sorted((k, str(v)) for k, v in labels.items())))
    return list(by_name.values())


def allowed(docs: list[Doc], source: Component, target: Component, port: int) -> bool:
    """Return whether `source` may connect to `target`: its egress and the target's ingress must allow it."""
    return permits(docs, source, target, port, "egress") and permits(docs, target, source, port, "ingress")


def permits(docs: list[Doc], component: Component, peer: Component, port: int, direction: str) -> bool:
    """Return whether the component's policies allow traffic with a peer in one direction (`ingress` or `egress`)."""
    side = "to" if direction == "egress" else "from"
    policies = [
        policy["spec"] for policy in of_kind(docs, "NetworkPolicy") if component.matches(policy["spec"]["podSelector"])
    ]
    with_direction = [spec for spec in policies if direction.capitalize() in spec["policyTypes"]]
    assert with_direction, f"{component.name} has no {direction} policy"
    for rule in (rule for spec in policies for rule in spec.get(direction, [])):
        ports = {entry["port"] for entry in rule["ports"]}
        selectors = [to["podSelector"] for to in rule[side] if "namespaceSelector" not in to and "podSelector" in to]
        if port in ports and any(peer.matches(selector) for selector in selectors):
            return True
    return False


def test_the_flows_between_components_are_those_of_the_design() -> None:
    docs = list(render("values"))
    flows = {
        (source.name, target.name, port)
        for source, target in permutations(components(docs), 2)
        for port in PORTS
        if allowed(docs, source, target, port)
    }
    assert flows == FLOWS


@pytest.mark.parametrize("name", VALUES)
def test_every_pod_is_isolated_both_ways_and_has_a_policy_that_names_its_flows(name: str) -> None:
    docs = list(render(name))
    deny_all = named(docs, "NetworkPolicy", f"{NAME}-deny-all")["spec"]
    assert deny_all["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in deny_all
    assert "egress" not in deny_all
    specs = [policy["spec"] for policy in of_kind(docs, "NetworkPolicy") if policy["spec"] != deny_all]
    for component in components(docs):
        assert component.matches(deny_all["podSelector"]), component
        has_policy = any(component.matches(spec["podSelector"]) for spec in specs)
        assert has_policy or component.name.endswith("-placeholder"), f"{component.name} has no flow"


def rules(docs: list[Doc]) -> Iterator[tuple[str, Doc]]:
    """Yield (policy/direction, peers and ports) of every rule."""
    for policy in of_kind(docs, "NetworkPolicy"):
        for direction, side in (("ingress", "from"), ("egress", "to")):
            for rule in policy["spec"].get(direction, []):
                yield f"{policy['metadata']['name']}/{direction}", {"peers": rule.get(side), "ports": rule.get("ports")}


@pytest.mark.parametrize("name", VALUES)
def test_no_rule_allows_every_peer_or_port(name: str) -> None:
    for where, rule in rules(list(render(name))):
        assert rule["peers"], f"{where}: no peers means all"
        assert rule["ports"], f"{where}: no ports means all"
        for peer in rule["peers"]:
            # Half of all addresses is as good as all. A single node has neither a proxy nor an identity provider.
            wide = int(peer.get("ipBlock", {}).get("cidr", "/32").partition("/")[2]) < 8
            assert not wide or (name == "values-dev" and where.endswith("/egress")), where
            assert peer.get("namespaceSelector", {"some": 1}) != {}, where


def test_the_weights_job_may_connect_to_its_proxy_only() -> None:
    for name in VALUES:
        docs = list(render(name))
        jobs = [doc for doc in of_kind(docs, "Job") if "-weights-" in doc["metadata"]["name"]]
        for job in jobs:
            (container,) = job["spec"]["template"]["spec"]["containers"]
            egress = named(docs, "NetworkPolicy", f"{NAME}-weights")["spec"]["egress"]
            (outside,) = [rule for rule in egress if rule["ports"][0]["port"] != 53]
            proxy = environment(container).get("HTTPS_PROXY")
            if name == "values-dev":
                assert proxy is None
                assert all("ipBlock" in peer for peer in outside["to"])
            else:
                assert proxy == "http://proxy.egress-proxy.svc:3128"
                peer = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "egress-proxy"}}}
                assert outside == {"to": [peer], "ports": [{"port": 3128, "protocol": "TCP"}]}
        assert bool(jobs) == (name != "values-airgapped")


def test_without_fetching_pods_connect_outside_only_for_dns_and_identity() -> None:
    docs = list(render("values-airgapped"))
    outside = {
        (where.split("/")[0].removeprefix(f"{NAME}-"), json.dumps(peer))
        for where, rule in rules(docs)
        for peer in rule["peers"]
        if where.endswith("egress") and "podSelector" not in peer
    }
    assert {tier for tier, _ in outside} == {"chatbot", "ingest", "ingest-worker"}
    assert {peer for _, peer in outside} == {'{"ipBlock": {"cidr": "10.20.0.0/24"}}'}


def test_a_stream_is_neither_cut_nor_buffered_and_probes_are_not_public() -> None:
    docs = render("values-prod", "--set", "chatbot.canary.enabled=true", "--set", "chatbot.canary.tag=0.2.0")
    (rule,) = named(docs, "HTTPRoute", f"{NAME}-chatbot")["spec"]["rules"]
    longest = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))["chatbot"]["longestAnswerSeconds"]
    assert int(rule["timeouts"]["request"].removesuffix("s")) > longest
    assert int(rule["timeouts"]["backendRequest"].removesuffix("s")) > longest
    paths = {match["path"]["value"] for match in rule["matches"]}
    assert paths == {"/v1/", "/web/", "/openapi.json", "/"}
    assert {"type": "Exact", "value": "/"} in [match["path"] for match in rule["matches"]]
    assert [(ref["name"], ref["weight"]) for ref in rule["backendRefs"]] == [
        (f"{NAME}-chatbot", 95),
        (f"{NAME}-chatbot-canary", 5),
    ]
    ingress = named(render("values-airgapped"), "Ingress", f"{NAME}-chatbot")
    annotations = ingress["metadata"]["annotations"]
    assert annotations["nginx.ingress.kubernetes.io/proxy-buffering"] == "off"
    assert annotations["nginx.ingress.kubernetes.io/proxy-http-version"] == "1.1"
    assert int(annotations["nginx.ingress.kubernetes.io/proxy-read-timeout"]) > longest
    assert {path["path"] for path in ingress["spec"]["rules"][0]["http"]["paths"]} == paths


def test_prometheus_finds_every_tier_and_services_lead_to_their_pods() -> None:
    docs = list(render("values"))
    services = {doc["metadata"]["name"]: doc for doc in of_kind(docs, "Service")}
    for name, service in services.items():
        selector = {"matchLabels": service["spec"]["selector"]}
        assert any(component.matches(selector) for component in components(docs)), name
    monitored = {
        doc["spec"]["selector"]["matchLabels"]["app.kubernetes.io/component"]: doc["spec"]
        for doc in of_kind(docs, "ServiceMonitor")
    }
    assert set(monitored) == {"chatbot", "ingest", "ingest-worker", "llm-h100", "redis", "qdrant"}
    for component, spec in monitored.items():
        (service,) = [
            s for s in services.values() if s["metadata"]["labels"]["app.kubernetes.io/component"] == component
        ]
        assert spec["endpoints"][0]["port"] in {port["name"] for port in service["spec"]["ports"]}
        policy = next(
            p
            for p in of_kind(docs, "NetworkPolicy")
            if p["metadata"]["name"] == f"{NAME}-{'llm' if component.startswith('llm') else component}"
        )
        port = next(p["port"] for p in service["spec"]["ports"] if p["name"] == spec["endpoints"][0]["port"])
        monitoring = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
        assert any(
            monitoring in rule["from"] and port in {entry["port"] for entry in rule["ports"]}
            for rule in policy["spec"]["ingress"]
        ), component
