"""Which metrics, labels and label values an expression of Prometheus asks for. Its syntax is promtool's to judge."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_METRIC = re.compile(r"(?<![\w:\"$.])((?:chatbot|ingest|redis|vllm|namespace)[_:][a-z_:0-9]+|up)\b(?:\{([^}]*)\})?")
_MATCHER = re.compile(r"(\w+)\s*(=~|!~|!=|=)\s*\"([^\"]*)\"")
_GROUPED = re.compile(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)")


@dataclass(frozen=True, slots=True)
class Asked:
    """A metric and the (label, operator, value) of its matchers."""

    metric: str
    matchers: tuple[tuple[str, str, str], ...]


def asked(expression: str) -> Iterator[Asked]:
    """Yield what is selected."""
    for name, matchers in _METRIC.findall(_GROUPED.sub("", expression)):
        yield Asked(name, tuple(_MATCHER.findall(matchers)))


def grouped(expression: str) -> set[str]:
    """Return the labels that results are grouped by."""
    return {label.strip() for labels in _GROUPED.findall(expression) for label in labels.split(",") if label.strip()}
