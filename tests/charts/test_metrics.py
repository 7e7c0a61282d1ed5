"""Scalers, rules and dashboards ask only for metrics, labels and values that the programs emit."""

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
from chatbot.models import FailureName, Group
from chatbot.notices import DegradationLevel
from ingest.metrics import Metrics as StaffMetrics
from ingest.parsing import Reason
from tests.charts.promql import asked, grouped
from tests.charts.rendering import CHART, ROOT, SCALED, VALUES, Doc, of_kind, render
from tests.conftest import free_port
from tests.golden.contracts import descendants, described_instruments

RECORDED: Doc = yaml.safe_load((Path(__file__).parent / "vllm_metrics.yaml").read_text("utf-8"))
VLLM = next((ROOT / ".venv-llm").glob("lib/*/site-packages/vllm/v1/metrics/loggers.py"), None)
# What Prometheus adds to everything that a ServiceMonitor finds.
SCRAPED = {"namespace", "service", "pod", "job", "instance", "container", "endpoint"}
# Runbooks that are about more than their alerts.
OLDER = {"overload", "models-down", "limits"}
REASONS = {"late", "full", "share"}
CODES = {error.code for error in (errors.ChatError, *descendants(errors.ChatError))}
VALUES_OF: dict[str, set[str]] = {
    "outcome": {reason.value for reason in FinishReason} | {f"error_{code}" for code in CODES},
    "code": CODES,
    "rung": {rung.value for rung in DegradationLevel},
    "group": set(get_args(Group)),
    "grounded": {"true", "false"},
    "priority": {"0", "10", "20"},
    "why": REASONS | {"reader", "cancel", "orphan"},
    "rating": {"up", "down"},
    "le": {"5.0"},
}
# Of documents; a new one is a question to DocumentsFail: has it gone well?
WRITTEN = {"indexed", "approved", "dead"}
OUTCOMES_OF: dict[str, set[str]] = {
    "chatbot_model_calls_total": set(get_args(FailureName)) | {"ok", "slow"},
    "ingest_documents_total": WRITTEN | {reason.value for reason in Reason},
}


Labels = dict[str, set[str]]
"""The labels of each sample's name."""


def samples(name: str, kind: str, labels: set[str]) -> Labels:
    """Return a family's samples as Prometheus stores them."""
    if kind == "histogram":
        return {f"{name}_bucket": labels | {"le"}, f"{name}_count": labels, f"{name}_sum": labels}
    return {f"{name.removesuffix('_total')}_total" if kind == "counter" else name: labels}


def of_instruments(metrics: ChatMetrics | StaffMetrics) -> Labels:
    """Return what our own instruments emit."""
    emitted: Labels = {}
    for instrument in described_instruments(metrics):
        emitted |= samples(instrument["name"], instrument["type"], set(instrument["labels"]))
    return emitted


@cache
def ours() -> Labels:
    """Return what the chatbot, the staff side and vLLM emit."""
    emitted: Labels = {"up": set(), **of_instruments(ChatMetrics()), **of_instruments(StaffMetrics())}
    for name, known in RECORDED["metrics"].items():
        emitted |= samples(name, known["type"], set(known["labels"]))
    return emitted


def rules() -> list[Doc]:
    groups = yaml.safe_load((CHART / "files/alerts.yaml").read_text("utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def expressions() -> Iterator[tuple[str, str]]:
    """Yield (where, expression) of everything in the chart that asks Prometheus."""
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


def test_drift_and_the_canary_are_on_the_customers_dashboard() -> None:
    panels = [expression for where, expression in expressions() if where.startswith("customers: ")]
    assert any("chatbot_drift_psi" in expression for expression in panels)
    assert any("by (job)" in expression and "error_" in expression for expression in panels)


def test_there_is_something_to_compare() -> None:
    assert len(list(expressions())) > 80


@pytest.fixture(scope="module")
def redis_exported(redis_url: str) -> dict[str, set[str]]:
    """What a real exporter tells of a real server."""
    exporter = which("prometheus-redis-exporter")
    if exporter is None:
        pytest.skip("prometheus-redis-exporter is missing: scripts/chart_parts brings it")
    address = f"127.0.0.1:{free_port()}"
    command = [exporter, "-redis.addr", redis_url, "-web.listen-address", address]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:  # noqa: S603
        try:
            return families(f"http://{address}/metrics", process)
        finally:
            process.terminate()


def families(url: str, process: subprocess.Popen[bytes]) -> dict[str, set[str]]:
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


def test_every_metric_and_label_that_is_asked_for_is_emitted(redis_exported: dict[str, set[str]]) -> None:
    recorded = {rule["record"]: grouped(rule["expr"]) for rule in rules() if "record" in rule}
    known = ours() | redis_exported | recorded
    wrong = []
    for where, expression in expressions():
        selectors = list(asked(expression))
        assert selectors, f"{where} asks for nothing that we know: {expression}"
        of_all = {label for selector in selectors for label in known.get(selector.metric, set())} | SCRAPED
        wrong += [f"{where}: nobody emits {selector.metric}" for selector in selectors if selector.metric not in known]
        wrong += [
            f"{where}: {selector.metric} has no label {label}"
            for selector in selectors
            for label, _, _ in selector.matchers
            if label not in known.get(selector.metric, set()) | SCRAPED
        ]
        wrong += [f"{where}: nothing has the label {label}" for label in grouped(expression) - of_all]
    assert wrong == []


def test_every_value_that_is_asked_for_can_be_emitted() -> None:
    wrong = []
    for where, expression in expressions():
        for selector in asked(expression):
            if not selector.metric.startswith(("chatbot", "ingest")):
                continue
            for label, operator, value in selector.matchers:
                known = VALUES_OF.get(label)
                if known is None or "$" in value:
                    assert label in SCRAPED, f"{where}: {label} is not a closed set"
                    continue
                parts = [value] if operator in {"=", "!="} else value.split("|")
                known = OUTCOMES_OF.get(selector.metric, known) if label == "outcome" else known
                wrong += [
                    f"{where}: {label}={part}"
                    for part in parts
                    if not any(re.fullmatch(part, emitted) for emitted in known)
                ]
    assert wrong == []


def test_the_outcomes_of_documents_are_those_that_are_counted() -> None:
    source = "".join(path.read_text("utf-8") for path in (ROOT / "ingest").glob("*.py"))
    assert set(re.findall(r'documents\.labels\(outcome="(\w+)"\)', source)) == WRITTEN


def test_the_buckets_that_are_asked_for_exist() -> None:
    registry = ChatMetrics()
    registry.first_token.labels("ko").observe(1)
    assert 'chatbot_first_token_seconds_bucket{language="ko",le="5.0"}' in generate_latest(registry.registry).decode()


def test_that_comparison_sees_a_metric_of_old_and_a_label_that_is_not_there() -> None:
    selectors = list(asked('sum by (model) (vllm:gpu_cache_usage_perc{namespace="a"}) / up{job="x"}'))
    assert [selector.metric for selector in selectors] == ["vllm:gpu_cache_usage_perc", "up"]
    assert "vllm:gpu_cache_usage_perc" not in ours()
    assert grouped("sum by (model) (vllm:num_requests_running)") == {"model"}
    assert "model" not in ours()["vllm:num_requests_running"]


def test_the_recorded_metrics_are_those_of_the_pinned_vllm() -> None:
    lock = (ROOT / "requirements/llm-gpu.lock").read_text("utf-8")
    assert f"\nvllm=={RECORDED['release']}\n" in lock, "vLLM has another release: record its metrics anew"
    if VLLM is None:
        pytest.skip(".venv-llm is missing: scripts/setup brings it")
    source = VLLM.read_text("utf-8")
    for name, known in RECORDED["metrics"].items():
        made = re.search(rf"_{known['type']}_cls\(\s*name=\"{name}\",(.*?)\n        \)", source, re.DOTALL)
        assert made, f"{name} is no {known['type']} of this vLLM"
        named = re.search(r"labelnames=(.*)", made[1])
        assert named, name
        labels = named[1].rstrip(",").replace("labelnames", '["model_name", "engine"]')
        assert set(re.findall(r'"(\w+)"', labels)) == set(known["labels"]), f"{name}: {labels}"


def test_what_the_autoscaler_reads_is_what_the_adapter_is_told_to_offer() -> None:
    hpa = render("values", *SCALED)
    adapter = next(doc for doc in hpa if doc["metadata"]["name"].endswith("-adapter-rules"))
    config = yaml.safe_load(adapter["data"]["config.yaml"])
    offered = {}
    for rule in [*config["rules"], *config["externalRules"]]:
        (series,) = asked(rule["seriesQuery"])
        assert series.metric in ours()
        offered[rule["name"]["as"]] = series.metric
    read = {
        (metric.get("pods") or metric.get("external"))["metric"]["name"]
        for scaler in of_kind(hpa, "HorizontalPodAutoscaler")
        for metric in scaler["spec"]["metrics"]
    }
    assert read == set(offered)


def test_promtool_accepts_every_rule_and_every_panel(tmp_path: Path) -> None:
    promtool = which("promtool")
    if promtool is None:
        pytest.skip("promtool is missing: scripts/chart_parts brings it")
    filled = [
        {"record": f"panel:n{n}", "expr": expression.replace("$__rate_interval", "5m").replace("$namespace", "bank")}
        for n, (_, expression) in enumerate(expressions())
    ]
    panels = tmp_path / "panels.yaml"
    panels.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": filled}]}), "utf-8")
    command = [promtool, "check", "rules", "--lint=all", "--lint-fatal", str(CHART / "files/alerts.yaml"), str(panels)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stdout + done.stderr


def test_alerts_are_raised_by_what_they_are_for_and_by_nothing_else(tmp_path: Path) -> None:
    promtool = which("promtool")
    if promtool is None:
        pytest.skip("promtool is missing: scripts/chart_parts brings it")
    tests = sorted((Path(__file__).parent / "rules").glob("*_test.yaml"))
    for path in (CHART / "files/alerts.yaml", *tests):
        (tmp_path / path.name).write_text(path.read_text("utf-8"), "utf-8")
    command = [promtool, "test", "rules", *(str(tmp_path / path.name) for path in tests)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tested_has_a_severity_and_a_runbook_that_is_there() -> None:
    tested = "".join(path.read_text("utf-8") for path in (Path(__file__).parent / "rules").glob("*_test.yaml"))
    for rule in (rule for rule in rules() if "alert" in rule):
        name = rule["alert"]
        raised = re.search(rf"alertname: {name}\n\s+exp_alerts:\n", tested)
        assert raised, f"no test raises {name}"
        assert rule["labels"]["severity"] in {"page", "ticket"}
        runbook = ROOT / rule["annotations"]["runbook_url"]
        assert runbook.is_file(), f"{name}: {runbook} is missing"
        assert name in runbook.read_text("utf-8") or runbook.stem in OLDER


def test_a_bank_may_serve_its_runbooks_elsewhere() -> None:
    docs = render("values", "--set", "monitoring.rules.runbooks=https://wiki.bank.internal/chatbot/")
    (rule,) = of_kind(docs, "PrometheusRule")
    urls = [r["annotations"]["runbook_url"] for g in rule["spec"]["groups"] for r in g["rules"] if "alert" in r]
    assert urls
    assert all(re.fullmatch(r"https://wiki\.bank\.internal/chatbot/[a-z-]+\.md", url) for url in urls)
