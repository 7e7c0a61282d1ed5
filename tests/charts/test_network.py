"""NetworkPolicies allow the design's flows and no other; `permits` evaluates them as Kubernetes does."""

import json
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from itertools import permutations

import pytest
import yaml

from tests.charts.network import Component, allowed, components
from tests.charts.rendering import CHART, MESH, NAME, VALUES, Doc, environment, named, of_kind, render

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
        if where.endswith("egress") and "podSelector" not in peer and rule["ports"][0]["port"] != 53
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


RESOLVERS: list[Doc] = [
    {"namespace": {"kubernetes.io/metadata.name": "kube-system"}, "pod": {"k8s-app": "kube-dns"}},  # CoreDNS
    {"namespace": {"kubernetes.io/metadata.name": "kube-system"}, "pod": {"k8s-app": "node-local-dns"}},
    {"address": "169.254.20.10"},  # NodeLocal DNSCache
    {"address": "169.254.169.254"},  # Cloud DNS for GKE
]


def reaches(peer: Doc, target: Doc) -> bool:
    """Return whether a peer of a rule is the target: an address, or a pod by its labels and its namespace's."""
    if "address" in target:
        return "ipBlock" in peer and ip_address(target["address"]) in ip_network(peer["ipBlock"]["cidr"])
    if "namespaceSelector" not in peer:
        return False
    namespace = Component("", tuple(target["namespace"].items()))
    return namespace.matches(peer["namespaceSelector"]) and Component("", tuple(target["pod"].items())).matches(
        peer.get("podSelector", {})
    )


def ports_to(docs: list[Doc], component: Component, target: Doc) -> set[tuple[int, str]]:
    """Return the (port, protocol) at which a component may connect to a target outside the release."""
    specs = [p["spec"] for p in of_kind(docs, "NetworkPolicy") if component.matches(p["spec"]["podSelector"])]
    return {
        (entry["port"], entry["protocol"])
        for spec in specs
        for rule in spec.get("egress", [])
        if any(reaches(peer, target) for peer in rule["to"])
        for entry in rule["ports"]
    }


def test_every_sidecar_reaches_the_control_plane_and_a_name_server_and_nobody_does_without_a_mesh() -> None:
    istiod: Doc = {"namespace": {"kubernetes.io/metadata.name": "istio-system"}, "pod": {"app": "istiod"}}
    docs = list(render("values", *MESH))
    assert {c.name for c in components(docs)} >= {"chatbot", "redis", "postgres", "llm-h100", "weights"}
    for component in components(docs):
        assert ports_to(docs, component, istiod) == {(15012, "TCP")}, component.name
        assert ports_to(docs, component, RESOLVERS[0]) == {(53, "UDP"), (53, "TCP")}, component.name
    without = list(render("values"))
    assert all(ports_to(without, component, istiod) == set() for component in components(without))


@pytest.mark.parametrize("name", VALUES)
def test_names_are_resolved_by_every_cloud_s_resolver_and_no_metadata_server_is_reached(name: str) -> None:
    docs = list(render(name))
    for component in components(docs):
        specs = [p["spec"] for p in of_kind(docs, "NetworkPolicy") if component.matches(p["spec"]["podSelector"])]
        if not any("egress" in spec for spec in specs):
            continue
        for resolver in RESOLVERS:
            ports = ports_to(docs, component, resolver)
            anybody = {(443, "TCP")} if name == "values-dev" and "address" in resolver else set()
            assert ports - anybody == {(53, "UDP"), (53, "TCP")}, f"{component.name}: {resolver}"


def test_prometheus_finds_every_tier_and_services_lead_to_their_pods() -> None:
    docs = list(render("values"))
    parts = components(docs)
    services = {doc["metadata"]["labels"]["app.kubernetes.io/component"]: doc for doc in of_kind(docs, "Service")}
    for service in services.values():
        assert any(part.matches({"matchLabels": service["spec"]["selector"]}) for part in parts)
    monitors = [doc["spec"] for doc in of_kind(docs, "ServiceMonitor")]
    monitored = {spec["selector"]["matchLabels"]["app.kubernetes.io/component"]: spec for spec in monitors}
    assert set(monitored) == {"chatbot", "ingest", "ingest-worker", "llm-h100", "redis", "qdrant"}
    monitoring = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    for name, spec in monitored.items():
        ports = {port["name"]: port["port"] for port in services[name]["spec"]["ports"]}
        policy = named(docs, "NetworkPolicy", f"{NAME}-{'llm' if name.startswith('llm') else name}")
        open_ports = {p["port"] for r in policy["spec"]["ingress"] if monitoring in r["from"] for p in r["ports"]}
        assert ports[spec["endpoints"][0]["port"]] in open_ports, name
