"""The same questions do not alarm, others do; whatever the shares, PSI is a distance; nothing of a question is kept."""

import math
from collections import Counter
from pathlib import Path

import anyio
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import generate_latest

from chatbot.drift.psi import (
    LEAST_QUESTIONS,
    MODERATE_SHIFT,
    OUTCOMES,
    SIGNIFICANT_SHIFT,
    Bin,
    BinCounter,
    Feature,
    Reference,
    TooFewQuestions,
    build_reference,
    psi,
)
from chatbot.drift.watch import DriftSettings, DriftWatch, ReferenceUnreadable, read_reference
from chatbot.events import FinishReason
from chatbot.metrics import Metrics
from chatbot.records import AnswerResult, SearchFinished, TurnFinished
from tests.constants import with_constants
from tests.drift import ENDED, window

COUNTS = st.lists(st.integers(0, 10_000), min_size=2, max_size=12).filter(any)


@pytest.fixture(scope="module")
def reference() -> Reference:
    return build_reference(window(7, 2000), ENDED, embedder="e5", now=1.0)


def shifts(reference: Reference, searches: list[SearchFinished], ended: dict[str, int] = ENDED) -> dict[Feature, float]:
    """Return the PSI of each feature."""
    counts = BinCounter(reference).count(searches)
    counts.update({("outcome", name): count for name, count in ended.items()})
    by_feature = {f: {b: float(n) for (of, b), n in counts.items() if of == f} for f in reference.features}
    return {feature: psi(reference.features[feature].shares, counted) for feature, counted in by_feature.items()}


@given(COUNTS)
def test_psi_of_the_same_shares_is_nothing(counts: list[int]) -> None:
    expected = {str(n): count / sum(counts) for n, count in enumerate(counts)}
    assert psi(expected, {str(n): float(count) for n, count in enumerate(counts)}) == pytest.approx(0, abs=1e-9)


@given(COUNTS, st.data())
def test_psi_is_a_distance_that_empty_bins_do_not_make_endless(counts: list[int], data: st.DataObject) -> None:
    others = data.draw(st.lists(st.integers(0, 10_000), min_size=len(counts), max_size=len(counts)).filter(any))
    expected = {str(n): count / sum(counts) for n, count in enumerate(counts)}
    back = {str(n): count / sum(others) for n, count in enumerate(others)}
    there = psi(expected, {str(n): float(count) for n, count in enumerate(others)})
    assert 0 <= there <= 2 * math.log(1000)
    assert there == pytest.approx(psi(back, {str(n): float(count) for n, count in enumerate(counts)}))


def test_of_nothing_nothing_has_moved() -> None:
    assert psi({"ko": 0.8, "en": 0.2}, {}) == 0


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("questions", [500, 2000])
def test_the_same_kind_of_questions_never_alarms(reference: Reference, seed: int, questions: int) -> None:
    by_feature = shifts(reference, window(seed + 100, questions))
    assert set(by_feature) == set(reference.features)
    assert max(by_feature.values()) < MODERATE_SHIFT, by_feature


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("feature", "changed"),
    [
        ("topic", {"weights": (0.1, 0.2, 0.3, 0.4)}),
        ("nearness", {"weights": (0.3, 0.2, 0.1, 0.1, 0.3)}),  # a topic that the reference does not know
        ("language", {"english": 0.5}),
        ("meaning", {"better": -0.03}),
        ("terms", {"better": -0.05}),
        ("direction_1", {"weights": (0.05, 0.35, 0.3, 0.3)}),
    ],
)
def test_what_has_shifted_alarms(reference: Reference, seed: int, feature: Feature, changed: dict[str, object]) -> None:
    by_feature = shifts(reference, window(seed + 200, 500, **changed))  # type: ignore[arg-type]
    assert by_feature[feature] > SIGNIFICANT_SHIFT, by_feature


def test_twice_the_refusals_alarm_and_nothing_else_does(reference: Reference) -> None:
    by_feature = shifts(reference, window(300, 1000), {"stop": 600, "refused": 350, "handoff": 50})
    assert [feature for feature, value in by_feature.items() if value > SIGNIFICANT_SHIFT] == ["outcome"]


def test_the_file_is_small_names_topics_and_holds_no_vector_of_a_question(reference: Reference, tmp_path: Path) -> None:
    file = tmp_path / "reference.json"
    file.write_bytes(msgspec.json.encode(reference))
    assert file.stat().st_size < 64 * 1024
    assert read_reference(file, embedder="e5") == reference
    assert {f"document {n}" for n in range(4)} <= set(reference.abouts)
    questions = np.array([search.vector for search in window(7, 2000)])
    assert (questions @ np.array(reference.centers).T).max() < 0.999
    assert min(reference.features["topic"].shares.values()) >= 20 / 2000
    with pytest.raises(ReferenceUnreadable, match="made with e5"):
        read_reference(file, embedder="other")
    with pytest.raises(ReferenceUnreadable, match="is not a valid reference"):
        read_reference(tmp_path, embedder="e5")


def test_too_few_questions_make_no_reference() -> None:
    with pytest.raises(TooFewQuestions):
        build_reference(window(1, LEAST_QUESTIONS - 1), {}, embedder="e5", now=1.0)


def test_questions_that_are_all_the_same_make_one_too() -> None:
    same = window(1, 1) * LEAST_QUESTIONS
    reference = build_reference(same, {}, embedder="e5", now=1.0)
    assert shifts(reference, same, {})["topic"] < MODERATE_SHIFT


def finished(outcome: str) -> TurnFinished:
    failed = outcome.startswith("error_")
    result = (
        AnswerResult(error=outcome.removeprefix("error_"))
        if failed
        else AnswerResult(finish_reason=FinishReason(outcome))
    )
    return TurnFinished(result=result, language="ko", seconds=1, first_token_seconds=None, citations=0, related=False)


@pytest.mark.anyio
async def test_it_counts_away_from_the_loop_and_shows_it(reference: Reference) -> None:
    metrics, counts = Metrics(), Counter[Bin]()

    def on_counted(reference_id: str, batch: Counter[Bin]) -> None:
        metrics.drift_counted(reference_id, batch)
        counts.update(batch)

    metrics.drift_reference(reference)
    settings = with_constants(DriftSettings(), every=0.01, most_waiting=50)
    watch = DriftWatch(settings, reference, embedder="e5", on_counted=on_counted, now=lambda: 5.0)
    for search in window(1, 60):
        watch.record_search(search)
    watch.record_turn(finished("stop"))
    watch.record_turn(finished("error_internal"))
    async with anyio.create_task_group() as group:
        group.start_soon(watch.watch)
        with anyio.fail_after(10):
            while not counts:
                await anyio.sleep(0.01)
        group.cancel_scope.cancel()
    assert sum(count for (feature, _), count in counts.items() if feature == "topic") == 50  # what may wait is bounded
    assert (counts["outcome", "stop"], counts["outcome", "error"]) == (1, 1)
    exposed = generate_latest(metrics.registry).decode()
    assert f'chatbot_drift_questions_total{{bin="error",feature="outcome",reference="{reference.id}"}} 1.0' in exposed
    assert f'chatbot_drift_reference_share{{bin="refused",feature="outcome",reference="{reference.id}"}} 0.1' in exposed
    assert (
        f'chatbot_drift_reference_share{{bin="budget",feature="outcome",reference="{reference.id}"}} 0.001' in exposed
    )
    series = [line for line in exposed.splitlines() if line.startswith("chatbot_drift_questions_total{")]
    assert len(series) == sum(len(binned.shares) for binned in reference.features.values()) < 100


@pytest.mark.anyio
async def test_a_reference_is_taken_from_a_bounded_sample_of_all_that_was_seen() -> None:
    watch = DriftWatch(
        with_constants(DriftSettings(), sample=300), None, embedder="e5", on_counted=ignore, now=lambda: 5.0
    )
    with pytest.raises(TooFewQuestions):
        await watch.take_reference()
    await watch.watch()  # without a reference there is nothing to count
    early, late = window(1, 1000, weights=(1.0,)), window(2, 1000, weights=(0.0, 1.0))
    for search in (*early, *late):
        watch.record_search(search)
    watch.record_turn(finished("refused"))
    reference = await watch.take_reference()
    assert (reference.questions, reference.made_at, reference.embedder) == (300, 5.0, "e5")
    assert reference.features["outcome"].shares["refused"] == 1
    assert shifts(reference, [*early, *late], {})["topic"] < MODERATE_SHIFT


def ignore(_: str, __: Counter[Bin]) -> None:
    """Count nothing."""


def test_every_end_of_an_answer_has_a_bin() -> None:
    assert {reason.value for reason in FinishReason} < set(OUTCOMES)
