"""The scaling that the chart renders, played: a pay-day peak, a day, and what a leaving pod takes with it."""

import math
from dataclasses import replace
from itertools import pairwise
from typing import cast

import pytest
import yaml

from llm_server.capacity import PeakLoad, plan_capacity
from llm_server.profile import load_profile
from tests.charts.promql import asked
from tests.charts.rendering import CHART, NAME, Doc, environment, named, render
from tests.scaling.simulation import SYNC, Load, Place, Policy, Simulation, SimulationResult

# What a new GPU node takes: the cloud's, not the chart's.
NODE_SECONDS = 240.0
HOUR = 3600.0
DAY = 4 * HOUR
PEAK_ENDS = 1800.0
ORDINARY = 14.0
"""Questions a second: a third of what production's three replicas can take."""


def promised() -> float:
    """Return the seconds to the first text that the alert ChatbotFirstTokenSlow watches."""
    groups = yaml.safe_load((CHART / "files/alerts.yaml").read_text("utf-8"))["groups"]
    (rule,) = (
        r for g in groups for r in g["rules"] if r.get("record") == "namespace:chatbot_first_token_in_time:ratio5m"
    )
    return next(
        float(value) for selector in asked(rule["expr"]) for label, _, value in selector.matchers if label == "le"
    )


def target_of(values: str) -> float:
    """Return the first-token target that a values file renders."""
    (container,) = named(render(values), "Deployment", f"{NAME}-chatbot")["spec"]["template"]["spec"]["containers"]
    return float(environment(container)["ADMISSION__FIRST_TOKEN_TARGET"])


def load_seconds_of(values: str, pool: str) -> float:
    """Return what a values file says that a start takes; no object of the render carries it."""
    base, own = (yaml.safe_load((CHART / f"{name}.yaml").read_text("utf-8")) for name in ("values", values))
    return float((base["llm"]["poolDefaults"] | own["llm"]["pools"][pool])["loadSeconds"])


def policy_of(values: str, pool: str) -> tuple[Policy, Place]:
    """Return what a values file renders for a pool."""
    docs = render(values)
    scaler = cast("Doc", named(docs, "ScaledObject", f"{NAME}-llm-{pool}")["spec"])
    pod = named(docs, "StatefulSet", f"{NAME}-llm-{pool}")["spec"]["template"]["spec"]
    behaviour = scaler["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    up = {policy["type"]: policy for policy in behaviour["scaleUp"]["policies"]}
    trigger = scaler["triggers"][0]["metadata"]
    (down,) = behaviour["scaleDown"]["policies"]
    warm = [doc for doc in docs if doc["metadata"]["name"] == f"{NAME}-llm-{pool}-placeholder"]
    policy = Policy(
        least=scaler["minReplicaCount"],
        most=scaler["maxReplicaCount"],
        answers_per_replica=float(trigger["threshold"]),
        asked=frozenset(selector.metric for selector in asked(trigger["query"])),
        answer_seconds=float(trigger["query"].split("* ")[-2].split(")")[0]),
        up_percent=up["Percent"]["value"],
        up_pods=up["Pods"]["value"],
        up_period=up["Pods"]["periodSeconds"],
        calm_seconds=behaviour["scaleDown"]["stabilizationWindowSeconds"],
        seconds_per_pod_down=down["periodSeconds"],
    )
    leaves_after = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    place = Place(
        load_seconds=load_seconds_of(values, pool),
        node_seconds=NODE_SECONDS,
        warm=warm[0]["spec"]["replicas"] if warm else 0,
        drain_seconds=float(leaves_after + load_profile(pool).engine.shutdown_timeout),
    )
    return policy, place


def peak(t: float) -> float:
    """Return ten times the ordinary rate from the tenth minute on, reached within 60 s; later it is over."""
    up = min(1.0, max(0.0, (t - 600) / 60))
    down = min(1.0, max(0.0, (t - PEAK_ENDS) / 300))
    return ORDINARY * (1 + 9 * (up - down))


@pytest.fixture(scope="module")
def pay_day() -> SimulationResult:
    policy, place = policy_of("values-prod", "h100")
    target = target_of("values-prod")
    return Simulation(load_profile("h100"), policy, place, peak, target_seconds=target).run(1.5 * HOUR)


def share_within(result: SimulationResult, begin: float, end: float) -> float:
    seconds = [waited for asked, waited in result.first_tokens if begin <= asked < end]
    assert len(seconds) > 1000
    in_time = promised()
    return sum(waited <= in_time for waited in seconds) / len(seconds)


def test_a_peak_is_seen_in_full_and_served_after_one_scale_up(pay_day: SimulationResult) -> None:
    policy, place = policy_of("values-prod", "h100")
    ups = [(at, new) for (_, old), (at, new) in pairwise(pay_day.sizes) if new > old and at >= 600]
    enough = plan_capacity(
        load_profile("h100"),
        PeakLoad(answers_per_minute=10 * ORDINARY * 60, prompt_tokens=2000, answer_tokens=200, spare_replicas=0,
                    headroom=0.0),
    ).replicas  # fmt: skip
    decided = next(at for at, new in ups if new >= enough)
    assert decided - 600 <= 120, "the scaler asks for enough within a minute of the peak's height"
    served_from = decided + place.load_seconds + place.node_seconds + 30
    assert share_within(pay_day, served_from, PEAK_ENDS) >= 0.99
    assert [at for at in pay_day.turned_away if served_from <= at < PEAK_ENDS] == []
    assert max(new for _, new in pay_day.sizes) <= policy.most


def test_whoever_is_let_in_during_the_peak_is_answered_in_time(pay_day: SimulationResult) -> None:
    assert share_within(pay_day, 600, PEAK_ENDS) >= 0.95
    assert share_within(pay_day, 0, 600) >= 0.99


def test_after_the_peak_pods_leave_one_by_one_and_lose_no_stream(pay_day: SimulationResult) -> None:
    downs = [(at, old - new) for (_, old), (at, new) in pairwise(pay_day.sizes) if new < old and at >= PEAK_ENDS]
    assert len(downs) >= 5
    assert all(by == 1 for _, by in downs)
    assert all(later - earlier >= 120 for (earlier, _), (later, _) in pairwise(downs))
    assert pay_day.lost == 0


def day(t: float) -> float:
    """Return a day of a bank, night to night, at a sixth of its length, with a gust of a fifth every three minutes."""
    phase = t / DAY * 2 * math.pi
    gust = 1 + 0.2 * math.sin(t / 29)
    return ORDINARY * (2.1 - 2 * math.cos(phase)) * gust


def turns(result: SimulationResult, within: float) -> int:
    """Return how often the size went up and down again, or down and up, within so many seconds."""
    moves = [(at, new - old) for (_, old), (at, new) in pairwise(result.sizes)]
    return sum(a * b < 0 and later - earlier < within for (earlier, a), (later, b) in pairwise(moves))


def test_over_a_day_the_pool_follows_the_load_without_flapping() -> None:
    policy, place = policy_of("values-prod", "h100")
    result = Simulation(load_profile("h100"), policy, place, day, target_seconds=target_of("values-prod")).run(DAY)
    assert turns(result, within=policy.calm_seconds) == 0
    assert turns(result, within=math.inf) <= 4
    assert len(result.sizes) > 3, "it did follow"
    assert share_within(result, 0, DAY) >= 0.99
    assert result.lost == 0


@pytest.mark.parametrize(("values", "pool"), [("values-prod", "h100"), ("values-staging", "l4")])
def test_a_replica_is_asked_for_what_it_does_when_it_is_busy_to_seventy_percent(values: str, pool: str) -> None:
    policy, _ = policy_of(values, pool)
    profile, load = load_profile(pool), Load()
    unhurried = load.prompt_tokens / profile.speeds.prefill + load.answer_tokens / profile.speeds.one_stream
    planned = plan_capacity(profile, PeakLoad(answers_per_minute=60, prompt_tokens=2000, answer_tokens=200))
    assert policy.answer_seconds == pytest.approx(unhurried, rel=0.15)
    assert policy.answers_per_replica == pytest.approx(0.7 * planned.answers_per_second * unhurried, rel=0.15)


def test_the_simulation_can_tell_a_bad_policy_from_ours() -> None:
    policy, place = policy_of("values-prod", "h100")
    hasty = replace(policy, calm_seconds=15.0, seconds_per_pod_down=15.0)
    result = Simulation(load_profile("h100"), hasty, place, day, target_seconds=target_of("values-prod")).run(DAY / 2)
    assert turns(result, within=policy.calm_seconds) > 3


def test_a_grace_shorter_than_answers_loses_streams() -> None:
    policy, place = policy_of("values-prod", "h100")
    abrupt, target = replace(place, drain_seconds=0.5), target_of("values-prod")
    result = Simulation(load_profile("h100"), policy, abrupt, peak, target_seconds=target).run(0.75 * HOUR)
    assert result.lost > 0


@pytest.mark.parametrize("values", ["values", "values-staging", "values-prod", "values-airgapped"])
def test_the_alert_watches_what_admission_promises(values: str) -> None:
    # Admission spends its target twice at most: on the queue, and on prompts that are read before this one.
    assert 2 * target_of(values) == promised()


def test_a_pool_that_sleeps_is_woken_by_the_first_question() -> None:
    policy, place = policy_of("values-staging", "l4")
    assert policy.least == 0
    target = target_of("values-staging")
    result = Simulation(load_profile("l4"), policy, place, lambda _: 0.1, target_seconds=target, seed=3).run(HOUR)
    first = result.without_model[0]
    (_, _), (woken_at, size), *_ = result.sizes
    assert size == 1
    assert woken_at - first <= 2 * SYNC
    assert max(result.without_model) <= woken_at + place.node_seconds + place.load_seconds
    assert len(result.first_tokens) > 100
    deaf = replace(policy, asked=policy.asked - {"chatbot_ladder_total"})
    result = Simulation(load_profile("l4"), deaf, place, lambda _: 0.1, target_seconds=target, seed=3).run(HOUR)
    assert result.sizes == [(0.0, 0)], "the simulation sees the difference"


def test_a_warm_gpu_is_taken_once_and_comes_back_with_the_next_node() -> None:
    policy, place = policy_of("values-prod", "h100")
    profile, target = load_profile("h100"), target_of("values-prod")
    steps = Simulation(profile, policy, replace(place, warm=1), peak, target_seconds=target)
    assert [steps.node(0.0), steps.node(0.0)] == [0.0, place.node_seconds]
    assert [steps.node(place.node_seconds), steps.node(place.node_seconds)] == [0.0, place.node_seconds]
