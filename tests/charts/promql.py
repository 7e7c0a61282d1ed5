"""The metrics, labels and label values that a PromQL expression selects; promtool checks its syntax."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_METRIC = re.compile(
    r"(?<![\w:\"$.])((?:chatbot|ingest|redis|vllm|namespace|kubelet|kube|keda|DCGM)[_:][A-Za-z_:0-9]+|up)\b(?:\{([^}]*)\})?"
)
_MATCHER = re.compile(r"(\w+)\s*(=~|!~|!=|=)\s*\"([^\"]*)\"")
_GROUPED = re.compile(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)")


@dataclass(frozen=True, slots=True)
class Selector:
    """A metric and the (label, operator, value) of its label matchers."""

    metric: str
    matchers: tuple[tuple[str, str, str], ...]


def selectors_of(expression: str) -> Iterator[Selector]:
    """Yield the vector selectors of an expression."""
    for name, matchers in _METRIC.findall(_GROUPED.sub("", expression)):
        yield Selector(name, tuple(_MATCHER.findall(matchers)))


def grouped(expression: str) -> set[str]:
    """Return the labels of an expression's grouping and matching clauses (`by`, `without`, `on`, `ignoring`)."""
    return {label.strip() for labels in _GROUPED.findall(expression) for label in labels.split(",") if label.strip()}
