"""Samples of a process's `/metrics`."""

import httpx2
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample


async def scraped(url: str) -> list[Sample]:
    """Return every sample."""
    async with httpx2.AsyncClient() as http:
        text = (await http.get(f"{url}/metrics")).text
    families: list[Metric] = list(text_string_to_metric_families(text))
    return [sample for family in families for sample in family.samples]


async def total(url: str, name: str, **labels: str) -> float:
    """Return the sum over a name's samples with these labels, 0 where there is none."""
    named = [sample for sample in await scraped(url) if sample.name == name]
    return sum(sample.value for sample in named if labels.items() <= sample.labels.items())
