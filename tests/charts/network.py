"""Which component of a release may connect to which, by its NetworkPolicies."""

from dataclasses import dataclass

from tests.charts.rendering import Doc, of_kind, pods


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
