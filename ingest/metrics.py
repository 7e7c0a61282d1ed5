"""All metrics of the staff side in one table; label values are closed sets."""

from collections.abc import Container
from contextlib import AbstractContextManager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from ingest.catalogue import Stage
from ingest.parsing import Restriction

_SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Metrics:
    """Metrics in a separate registry, so that two services can run in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.documents = Counter(
            "ingest_documents_total",
            "Document versions that were indexed or approved, or that failed",
            ["outcome"],
            registry=self.registry,
        )
        self.passages = Counter("ingest_passages_total", "Passages written to the index", registry=self.registry)
        self.stage_seconds = Histogram(
            "ingest_stage_seconds", "Duration of a pipeline step", ["stage"], buckets=_SECONDS, registry=self.registry
        )
        self.jobs = Gauge("ingest_jobs_waiting", "Jobs not finished", registry=self.registry)
        self.oldest_job = Gauge(
            "ingest_oldest_job_seconds",
            "Age of the oldest unfinished job: how far the workers are behind",
            registry=self.registry,
        )
        self.dead_jobs = Gauge(
            "ingest_dead_jobs", "Jobs that failed three times and need a person", registry=self.registry
        )
        self.missing_passages = Gauge(
            "ingest_missing_passages",
            "Passages in SQL that the index lacked at the last comparison (every minute)",
            registry=self.registry,
        )
        self.index_compared = Gauge(
            "ingest_index_compared_timestamp_seconds",
            "Time of this process's last comparison of the index with SQL; 0 before the first",
            registry=self.registry,
        )
        self.refusals = Counter(
            "ingest_requests_refused_total",
            "Requests answered with one of the service's errors, but not with a bug or a refusal of the framework",
            ["code"],
            registry=self.registry,
        )
        self.task_failures = Counter(
            "ingest_task_failures_total",
            "Failures of background tasks, which restart, and of single jobs",
            ["task"],
            registry=self.registry,
        )
        self.parser_layers = Gauge(
            "ingest_parser_sandbox_layers",
            "1 if the parser process is confined in this way, 0 if the kernel or the container refused",
            ["layer"],
            registry=self.registry,
        )
        for stage in Stage:
            self.stage_seconds.labels(stage=stage.value)

    def set_restrictions(self, in_force: Container[Restriction]) -> None:
        """Set each restriction's gauge: 1 if it is in force in the parser process, else 0."""
        for restriction in Restriction:
            self.parser_layers.labels(layer=restriction.name.lower()).set(restriction in in_force)

    def task_failed(self, task: str) -> None:
        """Count a failure of a background task; passed to its supervisor as a hook."""
        self.task_failures.labels(task=task).inc()

    def timed(self, stage: Stage) -> AbstractContextManager[object]:
        """Observe the duration of the block in seconds, even if it raises."""
        return self.stage_seconds.labels(stage=stage.value).time()
