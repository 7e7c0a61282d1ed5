"""The scaling that the chart renders, simulated: a peak on pay day, a day, and the answers of a terminating pod."""

import json
import math
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from typing import cast

import pytest
import yaml

from llm_server.capacity import PeakLoad, plan_capacity
from llm_server.profile import load_profile
from tests.charts.promql import selectors_of
from tests.charts.rendering import CHART, NAME, Doc, environment, named, render
from tests.scaling.simulation import SYNC_SECONDS, AnswerSize, PoolTimings, ScalingPolicy, Simulation, SimulationResult

# How long a cloud takes to start a GPU node; no value of the chart.
NODE_SECONDS = 240.0
HOUR = 3600.0
DAY = 4 * HOUR
LOADS = (60.0, 180.0, 600.0)
"""Seconds from a replica's start on a free GPU until it is ready: from a node's disk, a shared volume, a slow one."""
PEAK_BEGINS = 600.0 + NODE_SECONDS + max(LOADS)
"""Late enough for a calendar to begin before it."""
PEAK_ENDS = PEAK_BEGINS + 1200.0
PAY_DAY_ENDS = PEAK_ENDS + HOUR
ORDINARY_RATE = 14.0
"""Questions per second: a third of the capacity of production's three replicas."""


def alert_threshold_seconds() -> float:
    """Return the time to the first token above which the alert ChatbotFirstTokenSlow counts an answer as slow."""
    groups = yaml.safe_load((CHART / "files/alerts.yaml").read_text("utf-8"))["groups"]
    (rule,) = (
        r for g in groups for r in g["rules"] if r.get("record") == "namespace:chatbot_first_token_in_time:ratio5m"
    )
    return next(
        float(value)
        for selector in selectors_of(rule["expr"])
        for label, _, value in selector.matchers
        if label == "le"
    )


def target_of(values: str) -> float:
    """Return the first-token target of a values file, in seconds."""
    (container,) = named(render(values), "Deployment", f"{NAME}-chatbot")["spec"]["template"]["spec"]["containers"]
    return float(environment(container)["ADMISSION__FIRST_TOKEN_TARGET"])


def load_seconds_of(values: str, pool: str) -> float:
    """Return a pool's `loadSeconds` of a values file, which no rendered object holds."""
    base, own = (yaml.safe_load((CHART / f"{name}.yaml").read_text("utf-8")) for name in ("values", values))
    return float((base["llm"]["poolDefaults"] | own["llm"]["pools"][pool])["loadSeconds"])


def policy_of(values: str, pool: str) -> tuple[ScalingPolicy, PoolTimings]:
    """Return the scaling that a values file renders for a pool."""
    docs = render(values)
    scaler = cast("Doc", named(docs, "ScaledObject", f"{NAME}-llm-{pool}")["spec"])
    pod = named(docs, "StatefulSet", f"{NAME}-llm-{pool}")["spec"]["template"]["spec"]
    behaviour = scaler["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    up = {policy["type"]: policy for policy in behaviour["scaleUp"]["policies"]}
    trigger = scaler["triggers"][0]["metadata"]
    (down,) = behaviour["scaleDown"]["policies"]
    placeholders = [doc for doc in docs if doc["metadata"]["name"] == f"{NAME}-llm-{pool}-placeholder"]
    policy = ScalingPolicy(
        min_replicas=scaler["minReplicaCount"],
        max_replicas=scaler["maxReplicaCount"],
        answers_per_replica=float(trigger["threshold"]),
        metrics=frozenset(selector.metric for selector in selectors_of(trigger["query"])),
        answer_seconds=float(trigger["query"].split("* ")[-2].split(")")[0]),
        up_percent=up["Percent"]["value"],
        up_pods=up["Pods"]["value"],
        up_period_seconds=up["Pods"]["periodSeconds"],
        stabilization_seconds=behaviour["scaleDown"]["stabilizationWindowSeconds"],
        seconds_per_pod_down=down["periodSeconds"],
    )
    pre_stop_seconds = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    timings = PoolTimings(
        load_seconds=load_seconds_of(values, pool),
        node_seconds=NODE_SECONDS,
        placeholders=placeholders[0]["spec"]["replicas"] if placeholders else 0,
        drain_seconds=float(pre_stop_seconds + load_profile(pool).engine.shutdown_timeout),
    )
    return policy, timings


def peak(t: float) -> float:
    """Return the questions per second: a rise to ten times the ordinary rate within 60 s, and a fall within 300 s."""
    rise = min(1.0, max(0.0, (t - PEAK_BEGINS) / 60))
    fall = min(1.0, max(0.0, (t - PEAK_ENDS) / 300))
    return ORDINARY_RATE * (1 + 9 * (rise - fall))


@pytest.fixture(scope="module")
def pay_day() -> SimulationResult:
    _, timings = policy_of("values-prod", "h100")
    return simulated_pay_day(timings.load_seconds, with_calendar=False)


def share_in_time(result: SimulationResult, begin: float, end: float) -> float:
    """Return the share of answers, of questions between two times, whose first token the alert counts as in time."""
    seconds = [waited for asked_at, waited in result.first_tokens if begin <= asked_at < end]
    assert len(seconds) > 1000
    threshold = alert_threshold_seconds()
    return sum(waited <= threshold for waited in seconds) / len(seconds)


def test_the_scaler_follows_a_peak_at_once_and_the_pool_serves_it_after_one_scale_up(pay_day: SimulationResult) -> None:
    policy, timings = policy_of("values-prod", "h100")
    ups = [(at, new) for (_, old), (at, new) in pairwise(pay_day.sizes) if new > old and at >= PEAK_BEGINS]
    enough = plan_capacity(
        load_profile("h100"),
        PeakLoad(answers_per_minute=10 * ORDINARY_RATE * 60, prompt_tokens=2000, answer_tokens=200, spare_replicas=0,
                    headroom=0.0),
    ).replicas  # fmt: skip
    decided_at = next(at for at, new in ups if new >= enough)
    assert decided_at - PEAK_BEGINS <= 120, "the scaler asks for enough within a minute of the peak's height"
    served_from = decided_at + timings.load_seconds + timings.node_seconds + 30
    assert share_in_time(pay_day, served_from, PEAK_ENDS) >= 0.99
    assert [at for at in pay_day.turned_away if served_from <= at < PEAK_ENDS] == []
    assert max(new for _, new in pay_day.sizes) <= policy.max_replicas


def test_answers_admitted_during_the_peak_begin_in_time(pay_day: SimulationResult) -> None:
    assert share_in_time(pay_day, PEAK_BEGINS, PEAK_ENDS) >= 0.95
    assert share_in_time(pay_day, 0, PEAK_BEGINS) >= 0.99


def test_after_the_peak_pods_stop_one_by_one_and_lose_no_answer(pay_day: SimulationResult) -> None:
    downs = [(at, old - new) for (_, old), (at, new) in pairwise(pay_day.sizes) if new < old and at >= PEAK_ENDS]
    assert len(downs) >= 5
    assert all(removed == 1 for _, removed in downs)
    assert all(later - earlier >= 120 for (earlier, _), (later, _) in pairwise(downs))
    assert pay_day.lost_answers == 0


def day(t: float) -> float:
    """Return the questions per second of a bank's day in a sixth of its time: a wave of 20 % every three minutes."""
    phase = t / DAY * 2 * math.pi
    wave = 1 + 0.2 * math.sin(t / 29)
    return ORDINARY_RATE * (2.1 - 2 * math.cos(phase)) * wave


LEAD_SECONDS = 120.0
"""How much sooner than a load and a node's start the calendar begins."""


@cache
def enough_replicas() -> int:
    """Return how many replicas `llm-server plan` wants for the peak, with its room to spare."""
    peak_load = PeakLoad(
        answers_per_minute=10 * ORDINARY_RATE * 60, prompt_tokens=2000, answer_tokens=200, spare_replicas=0
    )
    return plan_capacity(load_profile("h100"), peak_load).replicas


def _entry(replicas: int) -> dict[str, object]:
    when = {"start": "30 8 25 * *", "end": "0 13 25 * *", "timezone": "Asia/Seoul"}
    return {"name": "pay-day", **when, "replicas": replicas}


CALENDAR = (
    "--set-json", f"llm.pools.h100.scaling.calendar={json.dumps([_entry(enough_replicas())])}",
    "--set-json", f"chatbot.scaling.calendar={json.dumps([_entry(20)])}",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class PayDay:
    """A row of the table: the share of those who were turned away or answered without a model, and what it cost."""

    turned_away: float
    first_token_p95: float
    gpu_hours: float
    lost_answers: int


@cache
def simulated_pay_day(load_seconds: float, *, with_calendar: bool) -> SimulationResult:
    policy, timings = policy_of("values-prod", "h100")
    timings = replace(timings, load_seconds=load_seconds)
    if with_calendar:
        begins = PEAK_BEGINS - load_seconds - NODE_SECONDS - LEAD_SECONDS
        policy = replace(policy, calendar=((begins, PEAK_ENDS, enough_replicas()),))
    target = target_of("values-prod")
    return Simulation(load_profile("h100"), policy, timings, peak, target_seconds=target).run(PAY_DAY_ENDS)


def pay_day_table(load_seconds: float, *, with_calendar: bool) -> PayDay:
    """Return what a pay day comes to, of those who ask while the peak lasts; placeholders count as GPUs."""
    result = simulated_pay_day(load_seconds, with_calendar=with_calendar)
    _, timings = policy_of("values-prod", "h100")
    away = sum(PEAK_BEGINS <= at < PEAK_ENDS for at in (*result.turned_away, *result.without_model))
    waited = sorted(seconds for at, seconds in result.first_tokens if PEAK_BEGINS <= at < PEAK_ENDS)
    sizes = [*result.sizes, (PAY_DAY_ENDS, 0)]
    gpu_seconds = sum((later - at) * (size + timings.placeholders) for (at, size), (later, _) in pairwise(sizes))
    return PayDay(
        turned_away=away / (away + len(waited)),
        first_token_p95=waited[int(0.95 * len(waited))],
        gpu_hours=gpu_seconds / HOUR,
        lost_answers=result.lost_answers,
    )


def reversals(result: SimulationResult, within: float) -> int:
    """Return how often the size went up and down again, or down and up, within so many seconds."""
    changes = [(at, new - old) for (_, old), (at, new) in pairwise(result.sizes)]
    return sum(a * b < 0 and later - earlier < within for (earlier, a), (later, b) in pairwise(changes))


def test_over_a_day_the_pool_follows_the_load_without_flapping() -> None:
    policy, timings = policy_of("values-prod", "h100")
    result = Simulation(load_profile("h100"), policy, timings, day, target_seconds=target_of("values-prod")).run(DAY)
    assert reversals(result, within=policy.stabilization_seconds) == 0
    assert reversals(result, within=math.inf) <= 4
    assert len(result.sizes) > 3, "the pool followed the load"
    assert share_in_time(result, 0, DAY) >= 0.99
    assert result.lost_answers == 0


@pytest.mark.parametrize(("values", "pool"), [("values-prod", "h100"), ("values-staging", "l4")])
def test_a_replica_s_target_is_seventy_percent_of_its_capacity(values: str, pool: str) -> None:
    policy, _ = policy_of(values, pool)
    profile, size = load_profile(pool), AnswerSize()
    unloaded_seconds = size.prompt_tokens / profile.speeds.prefill + size.answer_tokens / profile.speeds.one_stream
    planned = plan_capacity(profile, PeakLoad(answers_per_minute=60, prompt_tokens=2000, answer_tokens=200))
    assert policy.answer_seconds == pytest.approx(unloaded_seconds, rel=0.15)
    assert policy.answers_per_replica == pytest.approx(0.7 * planned.answers_per_second * unloaded_seconds, rel=0.15)


def test_the_simulation_detects_a_policy_that_flaps() -> None:
    policy, timings = policy_of("values-prod", "h100")
    hasty = replace(policy, stabilization_seconds=15.0, seconds_per_pod_down=15.0)
    result = Simulation(load_profile("h100"), hasty, timings, day, target_seconds=target_of("values-prod")).run(DAY / 2)
    assert reversals(result, within=policy.stabilization_seconds) > 3


def test_a_grace_period_shorter_than_answers_loses_answers() -> None:
    policy, timings = policy_of("values-prod", "h100")
    abrupt, target = replace(timings, drain_seconds=0.5), target_of("values-prod")
    half = Simulation(load_profile("h100"), policy, abrupt, lambda t: peak(t) / 2, target_seconds=target)
    assert half.run(PEAK_ENDS + 600.0).lost_answers > 0


@pytest.mark.parametrize("values", ["values", "values-staging", "values-prod", "values-airgapped"])
def test_the_alert_s_threshold_is_twice_the_target_of_admission(values: str) -> None:
    # A question waits one target at most in the queue, and one for the prompts that are prefilled before its own.
    assert 2 * target_of(values) == alert_threshold_seconds()


def test_a_pool_that_sleeps_is_woken_by_the_first_question() -> None:
    policy, timings = policy_of("values-staging", "l4")
    assert policy.min_replicas == 0
    target = target_of("values-staging")
    profile = load_profile("l4")
    result = Simulation(profile, policy, timings, lambda _: 0.1, target_seconds=target, seed=3).run(HOUR)
    first = result.without_model[0]
    (_, _), (woken_at, size), *_ = result.sizes
    assert size == 1
    assert woken_at - first <= 2 * SYNC_SECONDS
    assert max(result.without_model) <= woken_at + timings.node_seconds + timings.load_seconds
    assert len(result.first_tokens) > 100
    without_ladder = replace(policy, metrics=policy.metrics - {"chatbot_degraded_answers_total"})
    result = Simulation(profile, without_ladder, timings, lambda _: 0.1, target_seconds=target, seed=3).run(HOUR)
    assert result.sizes == [(0.0, 0)], "the simulation sees the difference"


def test_a_placeholder_is_evicted_once_and_back_with_the_next_node() -> None:
    policy, timings = policy_of("values-prod", "h100")
    profile, target = load_profile("h100"), target_of("values-prod")
    simulation = Simulation(profile, policy, replace(timings, placeholders=1), peak, target_seconds=target)
    for now in (0.0, timings.node_seconds):
        assert [simulation.gpu_wait_seconds(now) for _ in range(2)] == [0.0, timings.node_seconds]


@pytest.mark.parametrize("load_seconds", LOADS)
def test_a_calendar_lets_customers_in_on_pay_day(load_seconds: float) -> None:
    demand, known = (pay_day_table(load_seconds, with_calendar=with_calendar) for with_calendar in (False, True))
    assert demand.turned_away > 0.05, "the peak is one that demand alone does not serve"
    assert known.turned_away <= 0.02
    assert known.first_token_p95 <= alert_threshold_seconds()
    assert known.lost_answers == 0
    # What the early start costs, against demand alone: the lead and nothing after the peak.
    lead_hours = enough_replicas() * (load_seconds + NODE_SECONDS + LEAD_SECONDS) / HOUR
    assert known.gpu_hours <= demand.gpu_hours + 1.5 * lead_hours


def test_the_calendar_is_a_trigger_of_both_scalers_and_demand_stays_one() -> None:
    docs = render("values-prod", *CALENDAR)
    for kind, name in (("llm-h100", "answers-wanted"), ("chatbot", "active-answers")):
        triggers = {t["name"]: t for t in named(docs, "ScaledObject", f"{NAME}-{kind}")["spec"]["triggers"]}
        assert name in triggers
        assert triggers["pay-day"]["type"] == "cron"
        assert triggers["pay-day"]["metadata"] == {
            "timezone": "Asia/Seoul", "start": "30 8 25 * *", "end": "0 13 25 * *",
            "desiredReplicas": str(enough_replicas() if kind == "llm-h100" else 20),
        }  # fmt: skip
