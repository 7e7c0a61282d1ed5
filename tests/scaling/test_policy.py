"""The scaling that the chart renders fits the profiles' speeds, the target of admission, and the plan of a load."""

import json

import pytest
import yaml

from llm_server.capacity import PeakLoad, plan_capacity
from llm_server.profile import load_profile
from tests.charts.promql import selectors_of
from tests.charts.rendering import CHART, NAME, Doc, environment, named, render

PROMPT_TOKENS, ANSWER_TOKENS = 1400.0, 200.0
"""Of a typical answer: the tokens of its prompt that are not in the prefix cache, and those that are generated."""


def scaler_of(values: str, pool: str) -> Doc:
    """Return the spec of a pool's scaler."""
    return dict(named(render(values), "ScaledObject", f"{NAME}-llm-{pool}")["spec"])


def alert_threshold_seconds() -> float:
    """Return the time to the first token above which the alert ChatbotFirstTokenSlow counts an answer as slow."""
    groups = yaml.safe_load((CHART / "files/alerts.yaml").read_text("utf-8"))["groups"]
    record = "namespace:chatbot_first_token_in_time:ratio5m"
    (rule,) = (rule for group in groups for rule in group["rules"] if rule.get("record") == record)
    matchers = [matcher for selector in selectors_of(rule["expr"]) for matcher in selector.matchers]
    return next(float(value) for label, _, value in matchers if label == "le")


@pytest.mark.parametrize("values", ["values", "values-staging", "values-prod", "values-airgapped"])
def test_the_alert_s_threshold_is_twice_the_target_of_admission(values: str) -> None:
    # A question waits one target at most in the queue, and one for the prompts that are prefilled before its own.
    (container,) = named(render(values), "Deployment", f"{NAME}-chatbot")["spec"]["template"]["spec"]["containers"]
    assert 2 * float(environment(container)["ADMISSION__FIRST_TOKEN_TARGET"]) == alert_threshold_seconds()


@pytest.mark.parametrize(("values", "pool"), [("values-prod", "h100"), ("values-staging", "l4")])
def test_a_replica_s_target_is_seventy_percent_of_its_capacity(values: str, pool: str) -> None:
    trigger = scaler_of(values, pool)["triggers"][0]["metadata"]
    profile = load_profile(pool)
    unloaded_seconds = PROMPT_TOKENS / profile.speeds.prefill + ANSWER_TOKENS / profile.speeds.one_stream
    planned = plan_capacity(profile, PeakLoad(answers_per_minute=60, prompt_tokens=2000, answer_tokens=200))
    answer_seconds = float(trigger["query"].split("* ")[-2].split(")")[0])
    assert answer_seconds == pytest.approx(unloaded_seconds, rel=0.15)
    assert float(trigger["threshold"]) == pytest.approx(0.7 * planned.answers_per_second * unloaded_seconds, rel=0.15)


def test_a_sleeping_pool_stays_awake_longer_than_a_node_takes() -> None:
    scaler = scaler_of("values-staging", "l4")
    assert scaler["minReplicaCount"] == 0
    assert scaler["cooldownPeriod"] > 180


def test_the_scaler_reaches_its_maximum_within_two_syncs() -> None:
    scaler = scaler_of("values-prod", "h100")
    policies = scaler["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleUp"]["policies"]
    up = {policy["type"]: policy for policy in policies}
    assert {policy["periodSeconds"] for policy in policies} == {15}
    after_two_syncs = scaler["minReplicaCount"] * (1 + up["Percent"]["value"] / 100) ** 2
    assert after_two_syncs >= scaler["maxReplicaCount"]


def test_the_calendar_is_a_trigger_of_both_scalers_and_demand_stays_one() -> None:
    when = {"start": "30 8 25 * *", "end": "0 13 25 * *", "timezone": "Asia/Seoul"}
    entry = json.dumps([{"name": "pay-day", **when, "replicas": 8}])
    places = ("llm.pools.h100.scaling.calendar", "chatbot.scaling.calendar")
    docs = render("values-prod", *(word for place in places for word in ("--set-json", f"{place}={entry}")))
    for kind, name in (("llm-h100", "answers-wanted"), ("chatbot", "active-answers")):
        triggers = {t["name"]: t for t in named(docs, "ScaledObject", f"{NAME}-{kind}")["spec"]["triggers"]}
        assert name in triggers
        assert triggers["pay-day"]["type"] == "cron"
        assert triggers["pay-day"]["metadata"] == {**when, "desiredReplicas": "8"}
