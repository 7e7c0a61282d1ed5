"""The Prometheus instruments of the chat API; other modules report frozen records to these hooks.

Labels are closed sets: finish reasons and error codes, languages, scopes. `docs/metrics.md` lists them all.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import product
from typing import Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from chatbot.admission import Rejected, RejectionReason, Started
from chatbot.deferred import WriteKind
from chatbot.errors import ChatError, errors_under
from chatbot.models import ModelCall
from chatbot.notices import DegradationLevel
from chatbot.records import TurnFinished
from knowledge.passage import Language

_BY_LANGUAGE = (
    ("chatbot_withheld_sentences", "Sentences that failed the checks"),
    ("chatbot_citations", "Citations shown"),
    ("chatbot_related_answers", "Refusals that showed related passages: the documents may lack the answer"),
)
_SECONDS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 40, 80)


def server_errors() -> list[type[ChatError]]:
    """Return the server errors (5xx)."""
    return [error for error in errors_under(ChatError) if error.status >= 500]


class Metrics:
    """The instruments, on their own registry, because one process may run two applications."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        counter, gauge, histogram = self._instrument_constructors()
        self.answers = counter("chatbot_answers", "Answers that ended", ["outcome", "language", "grounded"])
        self.first_token = histogram(
            "chatbot_first_token_seconds", "Time from an opened turn, after its search, to its first text", ["language"]
        )
        self.answer = histogram(
            "chatbot_answer_seconds", "Time from an opened turn, after its search, to its closed record", ["language"]
        )
        self.tokens = counter(
            "chatbot_tokens",
            "Tokens of answers: `cached` are part of `prompt`, and `unpaid` were not charged",
            ["kind"],
        )
        self.withheld, self.citations, self.related = (
            counter(name, documentation, ["language"]) for name, documentation in _BY_LANGUAGE
        )
        self.refused = counter("chatbot_refused_requests", "Requests refused before the first byte", ["code"])
        self.rate_limited = counter(
            "chatbot_rate_limited_requests",
            "Requests refused because the caller's own limit was exceeded",
            ["scope", "dimension"],
        )
        self.feedback = counter("chatbot_feedback", "Ratings that customers gave to answers", ["rating"])
        self.active = gauge("chatbot_active_answers", "Answers running in this process")
        self.slots = gauge(
            "chatbot_model_slots",
            "Model slots that the endpoints offer now, at most `ADMISSION__SLOTS`",
        )
        self.busy = gauge("chatbot_busy_slots", "Model slots in use")
        self.prefill = gauge(
            "chatbot_prefill_tokens_per_second",
            "Estimated speed of prompt processing: the profiles' rate, corrected by measured first tokens",
        )
        self.queued = gauge("chatbot_queued_answers", "Answers opening, or waiting for a model slot", ["priority"])
        self.queue_wait = histogram(
            "chatbot_queue_wait_seconds", "Time that an answer waited for a model slot", ["priority"]
        )
        self.rejected = counter(
            "chatbot_rejected_questions",
            "Questions rejected for lack of capacity (503 `overloaded`)",
            ["priority", "reason"],
        )
        self.model_calls = counter("chatbot_model_calls", "Calls to model endpoints", ["group", "kind", "outcome"])
        self.model_first_token = histogram(
            "chatbot_model_first_token_seconds",
            "Time from a call of a model endpoint to its first token",
            ["group", "kind"],
        )
        self.degraded = counter(
            "chatbot_degraded_answers",
            "Answers from another source than the conversation's endpoint, by that source",
            ["rung"],
        )
        self.takeovers = counter(
            "chatbot_takeovers",
            "Answers of a dead or stopping replica that this replica continued or ended",
            ["reason"],
        )
        self.audit_anchored_at = gauge(
            "chatbot_audit_anchored_timestamp_seconds",
            "Time of the last audit anchor; 1 if there is none, 0 without AUDIT_ANCHORS",
        )
        self._create_failure_instruments(counter, gauge)

    def _create_failure_instruments(self, counter: Callable[..., Counter], gauge: Callable[..., Gauge]) -> None:
        self.task_failures = counter(
            "chatbot_task_failures",
            "Failures of background tasks, which restart, and of single steps; chatbot_answers has failed answers",
            ["task"],
        )
        self.deferred = gauge(
            "chatbot_deferred_writes", "Writes of ended answers that wait for Redis: settlements, messages, keys, logs"
        )
        self.lost = counter(
            "chatbot_lost_writes",
            "Writes of ended answers that were discarded: too many waited, the process ended, or a bug",
            ["kind"],
        )
        self.evicting = gauge(
            "chatbot_redis_eviction_enabled",
            "1 if a full Redis would evict conversations and reservations (maxmemory-policy is not noeviction)",
        )
        self.lost_reservations = counter(
            "chatbot_lost_reservations",
            "Reservations that Redis lost in a failover and that were charged again",
        )

    def _instrument_constructors(self) -> tuple[Callable[..., Counter], Callable[..., Gauge], Callable[..., Histogram]]:
        def counter(name: str, text: str, labels: Sequence[str] = ()) -> Counter:
            return Counter(name, text, labels, registry=self.registry)

        def gauge(name: str, text: str, labels: Sequence[str] = ()) -> Gauge:
            return Gauge(name, text, labels, registry=self.registry)

        def histogram(name: str, text: str, labels: Sequence[str] = ()) -> Histogram:
            return Histogram(name, text, labels, registry=self.registry, buckets=_SECONDS)

        return counter, gauge, histogram

    def begin_at_zero(self, priorities: Iterable[int]) -> None:
        """Create the labelled counters of scalers and alerts at 0, because a counter that starts at 1 has no rate."""
        for error in server_errors():
            self.refused.labels(error.code)
            for language in get_args(Language):
                self.answers.labels(f"error_{error.code}", language, "false")
        for level in DegradationLevel:
            self.degraded.labels(level.value)
        for kind in get_args(WriteKind):
            self.lost.labels(kind)
        for priority, reason in product(priorities, get_args(RejectionReason)):
            self.rejected.labels(str(priority), reason)

    def turn_finished(self, turn: TurnFinished) -> None:
        """Observe a finished answer (a hook)."""
        result, usage = turn.result, turn.result.usage
        self.answers.labels(result.label, turn.language, str(result.grounded).lower()).inc()
        self.answer.labels(turn.language).observe(turn.seconds)
        if turn.first_token_seconds is not None:
            self.first_token.labels(turn.language).observe(turn.first_token_seconds)
        self.tokens.labels("prompt").inc(usage.prompt_tokens)
        self.tokens.labels("cached").inc(usage.cached_tokens)
        self.tokens.labels("answer").inc(usage.answer_tokens)
        self.tokens.labels("thinking").inc(usage.thinking_tokens)
        self.tokens.labels("unpaid").inc(result.unpaid_tokens)
        self.withheld.labels(turn.language).inc(result.withheld)
        self.related.labels(turn.language).inc(turn.related)
        self.citations.labels(turn.language).inc(turn.citations)
        if result.degradation_level is not None:
            self.degraded.labels(result.degradation_level.value).inc()

    def admission_decided(self, record: Started | Rejected) -> None:
        """Observe an answer that got its slot, or a rejected question (a hook)."""
        match record:
            case Started(priority=priority, waited_seconds=seconds):
                self.queue_wait.labels(str(priority)).observe(seconds)
            case Rejected(priority=priority, reason=reason):
                self.rejected.labels(str(priority), reason).inc()

    def answer_taken_over(self, reason: Literal["reader", "cancel", "orphan"]) -> None:
        """Count a takeover of an answer from another replica (a hook)."""
        self.takeovers.labels(reason).inc()

    def task_failed(self, task: str) -> None:
        """Count an unexpected error of a background task or an answer (a hook)."""
        self.task_failures.labels(task).inc()

    def write_lost(self, kind: WriteKind) -> None:
        """Count a write that was given up (a hook)."""
        self.lost.labels(kind).inc()

    def model_called(self, call: ModelCall) -> None:
        """Observe the end of one call to one endpoint (a hook)."""
        self.model_calls.labels(call.group, call.kind, call.outcome).inc()
        if call.first_token_seconds is not None:
            self.model_first_token.labels(call.group, call.kind).observe(call.first_token_seconds)
