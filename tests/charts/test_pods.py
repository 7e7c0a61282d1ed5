"""The rules that every pod of every render follows, and how its timeouts, its names and its scalers fit together."""

import runpy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import pytest
import typer
import yaml

from chatbot.models import ModelsFile
from chatbot.settings import Settings as ChatSettings
from ingest.settings import Settings as StaffSettings
from knowledge.bank import read_banks
from llm_server.__main__ import app as llm_app
from llm_server.launch import ServeSettings
from llm_server.profile import load_profile
from tests.charts.rendering import (
    CHART,
    NAME,
    ROOT,
    VALUES,
    Doc,
    containers,
    environment,
    named,
    of_kind,
    pods,
    render,
)

# A pod that only reserves a GPU needs no probe.
PLACEHOLDER = "-placeholder"


def every_pod() -> Iterator[tuple[str, Doc]]:
    for name in VALUES:
        for where, pod in pods(render(name)):
            yield f"{name}: {where}", pod


def every_container() -> Iterator[tuple[str, Doc, Doc]]:
    for where, pod in every_pod():
        for container in containers(pod):
            yield f"{where}/{container['name']}", pod, container


def test_no_document_is_read_outside_the_walls() -> None:
    readers = [(where, container) for where, _, container in every_container() if container["name"] == "ingest"]
    assert readers
    for where, container in readers:
        assert environment(container)["PARSER__REQUIRE_WALLS"] == "true", where


def test_every_container_has_limits_and_every_scratch_folder_a_size() -> None:
    for where, pod, container in every_container():
        for kind in ("requests", "limits"):
            assert {"cpu", "memory"} <= set(container["resources"][kind]), where
        mounted = {mount["name"] for mount in container.get("volumeMounts", [])}
        for volume in pod["spec"].get("volumes", []):
            if volume["name"] in mounted and "emptyDir" in volume:
                assert volume["emptyDir"]["sizeLimit"], where


def test_the_chart_makes_no_secret_and_writes_none_into_a_pod() -> None:
    for name in VALUES:
        docs = render(name)
        assert of_kind(docs, "Secret") == []
        for where, pod in pods(docs):
            for container in containers(pod):
                for variable, value in environment(container).items():
                    secret = any(word in variable for word in ("PASSWORD", "AUDIT_KEY", "API_KEY"))
                    assert not secret, f"{where}: {variable}={value}"


def test_pods_are_rolled_when_their_models_or_their_secret_change() -> None:
    before = named(render("values"), "Deployment", f"{NAME}-chatbot")["spec"]["template"]["metadata"]["annotations"]
    rotated = render("values", "--set", "secrets.revision=two")
    other = render("values", "--set", "llm.pools.h100.profile=a100", "--set", "llm.pools.h100.gpu.count=2")
    after = named(rotated, "Deployment", f"{NAME}-chatbot")["spec"]["template"]["metadata"]["annotations"]
    assert before["checksum/secrets"] != after["checksum/secrets"]
    after = named(other, "Deployment", f"{NAME}-chatbot")["spec"]["template"]["metadata"]["annotations"]
    assert before["checksum/models"] != after["checksum/models"]


def test_a_pod_has_time_to_drain_before_it_is_killed() -> None:
    for name in VALUES:
        for where, pod in pods(render(name)):
            spec = pod["spec"]
            for container in spec["containers"]:
                wait = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
                grace = spec.get("terminationGracePeriodSeconds", 30)
                if container["name"] == "chatbot":
                    drain = float(environment(container)["DRAIN_SECONDS"])
                    assert drain >= float(environment(container)["TURN__LONGEST_ANSWER"])
                    assert wait >= 5, f"{where}: load balancers need time to take the pod out"
                    assert grace > wait + drain + 10, where
                elif container["name"] == "llm-server":
                    profile = load_profile(argument(container, "profile"))
                    # llm-server waits ten seconds longer than vLLM does.
                    assert grace > wait + profile.engine.shutdown_timeout + 10, where
                elif container["name"] == "ingest":
                    assert grace > wait + 30, where


def argument(container: Doc, name: str) -> str:
    return next(str(a).partition("=")[2] for a in container["args"] if a.startswith(f"--{name}="))


def test_a_model_server_may_start_longer_than_llm_server_waits_for_it() -> None:
    start_seconds = ServeSettings.model_fields["start_seconds"].default
    for where, pod in every_pod():
        for container in pod["spec"]["containers"]:
            if container["name"] == "llm-server":
                probe = container["startupProbe"]
                assert probe["failureThreshold"] * probe["periodSeconds"] > start_seconds, where


def test_scalers_add_fast_remove_slowly_and_hold_without_prometheus() -> None:
    for name in ("values", "values-staging", "values-prod"):
        for scaler in of_kind(list(render(name)), "ScaledObject"):
            spec = scaler["spec"]
            behaviour = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
            assert behaviour["scaleUp"]["stabilizationWindowSeconds"] == 0
            assert behaviour["scaleDown"]["stabilizationWindowSeconds"] >= 300
            assert behaviour["scaleDown"]["policies"] == [{"type": "Pods", "value": 1, "periodSeconds": 120}]
            assert spec["minReplicaCount"] <= spec["fallback"]["replicas"] <= spec["maxReplicaCount"]
            assert spec["fallback"]["behavior"] == "currentReplicasIfHigher", "an outage in a peak removes no replica"
            for trigger in spec["triggers"]:
                # KEDA's fallback holds for averages only.
                assert trigger["metricType"] == "AverageValue"
                # By default KEDA takes an empty result for 0: without a scrape the pool would look idle.
                never_empty = trigger["metadata"]["query"].endswith("or vector(0)")
                assert (trigger["metadata"].get("ignoreNullValues") == "false") is not never_empty


def test_every_tier_may_lose_a_pod_and_none_may_lose_all() -> None:
    for name in VALUES:
        docs = list(render(name))
        budgets = {
            doc["spec"]["selector"]["matchLabels"]["app.kubernetes.io/component"]: doc["spec"]["maxUnavailable"]
            for doc in of_kind(docs, "PodDisruptionBudget")
        }
        for doc in of_kind(docs, "Deployment", "StatefulSet"):
            component = doc["spec"]["selector"]["matchLabels"]["app.kubernetes.io/component"]
            if not component.endswith(PLACEHOLDER):
                assert budgets[component] == 1, component


def test_a_full_or_tainted_zone_keeps_no_model_server_from_another() -> None:
    zones = {
        where.rpartition("/")[2].removeprefix(f"{NAME}-"): pod["spec"]["topologySpreadConstraints"][0]
        for where, pod in pods(render("values-prod", "--set", "chatbot.zoneSpread=ScheduleAnyway"))
        if "topologySpreadConstraints" in pod["spec"]
    }
    # A zone that is lost, or has GPU nodes only, would count as empty and freeze the others.
    assert {constraint["nodeTaintsPolicy"] for constraint in zones.values()} == {"Honor"}
    # Sold-out GPUs of a zone keep no model server from those of another.
    assert {name: constraint["whenUnsatisfiable"] for name, constraint in zones.items()} == {
        **dict.fromkeys(("chatbot", "llm-h100", "llm-l4"), "ScheduleAnyway"),
        **dict.fromkeys(("ingest", "ingest-worker"), "DoNotSchedule"),
    }


def pool(docs: object) -> Doc:
    workload = named(cast("list[Doc]", docs), "StatefulSet", f"{NAME}-llm-h100")
    return cast("Doc", workload["spec"]["template"]["spec"])


def test_models_are_pinned_and_never_looked_up_on_the_hub() -> None:
    profile = load_profile("h100")
    assert profile.hub
    (container,) = pool(render("values"))["containers"]
    folder = f"/models/h100/{profile.hub.revision}"
    assert argument(container, "model") == folder
    assert environment(container)["HF_HUB_OFFLINE"] == "1"
    job = next(doc for doc in of_kind(render("values"), "Job") if "-weights-" in doc["metadata"]["name"])
    (script,) = job["spec"]["template"]["spec"]["containers"][0]["args"]
    assert f"bring {profile.hub.name} {profile.hub.revision} {folder}" in script
    assert of_kind(render("values-airgapped"), "Job") == []


def test_the_chart_s_profiles_are_those_of_the_llm_server() -> None:
    profiles = runpy.run_path(str(ROOT / "scripts/chart_profiles"))["chart_profiles"]()
    rendered = yaml.safe_load((CHART / "files/profiles.yaml").read_text("utf-8"))
    assert rendered == profiles, "run scripts/chart_profiles"


def test_placeholders_request_what_model_servers_request_and_are_evicted_first() -> None:
    docs = render("values")
    spec = named(docs, "Deployment", f"{NAME}-llm-h100-placeholder")["spec"]["template"]["spec"]
    model = pool(docs)
    assert spec["nodeSelector"] == model["nodeSelector"]
    assert spec["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert spec["containers"][0]["image"] == model["containers"][0]["image"], "or the node has to pull it first"
    priorities = {doc["metadata"]["name"]: doc["value"] for doc in of_kind(docs, "PriorityClass")}
    # Below -10 the Cluster Autoscaler adds no node for a pod.
    assert -10 <= priorities[spec["priorityClassName"]] < 0 < priorities[model["priorityClassName"]]


@pytest.mark.parametrize("name", VALUES)
def test_the_chatbot_reads_the_models_file_that_the_chart_writes(name: str) -> None:
    docs = render(name)
    entries = yaml.safe_load(named(docs, "ConfigMap", f"{NAME}-models")["data"]["models.yaml"])
    models = ModelsFile.model_validate(entries)
    services = {doc["metadata"]["name"]: doc["spec"] for doc in of_kind(docs, "Service")}
    sets = {doc["metadata"]["name"]: doc["spec"] for doc in of_kind(docs, "StatefulSet")}
    for entry in models.root:
        (url,) = entry.urls
        service, namespace = str(url.host).split(".")[:2]
        # Without an address of its own the name has those of the pods: of the ready ones, which is the default.
        assert entry.follow_dns
        assert services[service]["clusterIP"] == "None"
        assert not services[service].get("publishNotReadyAddresses")
        assert services[service]["selector"] == sets[service]["selector"]["matchLabels"]
        assert (namespace, url.port) == ("bank", 8000)
    mounted = named(docs, "Deployment", f"{NAME}-chatbot")["spec"]["template"]["spec"]["initContainers"][0]["args"][0]
    assert all(str(entry.tokenizer) in mounted for entry in models.root)


@pytest.mark.parametrize("name", VALUES)
def test_every_setting_of_the_chart_is_one_of_the_program(name: str) -> None:
    settings = {
        "chatbot": set(ChatSettings.model_fields),
        "ingest": set(StaffSettings.model_fields),
    }
    no_settings = {"HOME", "HF_HUB_OFFLINE", "POSTGRES_PASSWORD", "REDIS_PASSWORD"}
    for where, pod in pods(render(name)):
        for container in pod["spec"]["containers"]:
            if container["name"] in settings:
                variables = {entry["name"] for entry in container["env"]} - no_settings
                unknown = {v for v in variables if v.split("__")[0].lower() not in settings[container["name"]]}
                assert unknown == set(), where


def mounted_bank(docs: Sequence[Doc], folder: Path) -> Path:
    """Write what the chart mounts as the bank's file and its pictures; return the file."""
    for name, content in named(docs, "ConfigMap", f"{NAME}-bank")["data"].items():
        (folder / name).write_text(content, "utf-8")
    return folder / "bank.yaml"


def test_the_bank_s_file_and_its_logo_reach_both_services_and_a_new_one_rolls_them(tmp_path: Path) -> None:
    logo, checksums = tmp_path / "dawn.svg", set()
    logo.write_text('<svg xmlns="http://www.w3.org/2000/svg"/>\n', "utf-8")
    for telephone in ("1800-7000", "1800-9000"):
        values = ("--set", f"bank.names.ko=새벽은행,bank.telephone={telephone},bank.logo=dawn.svg")
        docs = render("values", *values, "--set-file", f"bankLogos.dawn\\.svg={logo}")
        (tmp_path / telephone).mkdir()
        bank = read_banks(mounted_bank(docs, tmp_path / telephone)).first
        assert (bank.names.ko, bank.names.en, bank.telephone) == ("새벽은행", "Example Bank", telephone)
        assert bank.logo_file is not None
        assert bank.logo_file.content == logo.read_bytes()
        for service in ("chatbot", "ingest"):
            pod = named(docs, "Deployment", f"{NAME}-{service}")["spec"]["template"]
            (container,) = pod["spec"]["containers"]
            assert environment(container)["BANK_FILE"] == "/etc/bank/bank.yaml"
            assert {"name": "bank", "mountPath": "/etc/bank", "readOnly": True} in container["volumeMounts"]
            checksums.add((service, pod["metadata"]["annotations"]["checksum/bank"]))
        worker = named(docs, "Deployment", f"{NAME}-ingest-worker")["spec"]["template"]
        assert "checksum/bank" not in worker["metadata"]["annotations"]
    assert len(checksums) == 4


def secret_of(name: str) -> str:
    """Return what an operator's Secret may have under a name."""
    return "redis://:b@c:6379/0" if name == "REDIS_URL" else "postgresql+asyncpg://a:b@c/d"


@pytest.mark.parametrize(("service", "kind"), [("chatbot", ChatSettings), ("ingest", StaffSettings)])
@pytest.mark.parametrize("name", VALUES)
def test_a_service_boots_with_what_the_chart_sets(
    name: str,
    service: str,
    kind: type[ChatSettings | StaffSettings],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    found = [c for _, pod in pods(render(name)) for c in pod["spec"]["containers"] if c["name"] == service]
    assert len(found) == (2 if service == "ingest" and name != "values-dev" else 1), "the staff API and its workers"
    for container in found:
        with monkeypatch.context() as patched:
            for entry in container["env"]:
                patched.setenv(entry["name"], entry.get("value", secret_of(entry["name"])))
            patched.setenv("BANK_FILE", str(mounted_bank(render(name), tmp_path)))
            settings = kind()
        assert (settings.host if isinstance(settings, ChatSettings) else settings.ingest_host) == "0.0.0.0"  # noqa: S104
        assert None not in (settings.redis_url, settings.auth, settings.index.url)
        if isinstance(settings, ChatSettings):
            assert settings.drain_seconds == settings.turn.longest_answer


def test_every_option_of_a_model_server_is_one_of_its_program() -> None:
    serve = typer.main.get_command(llm_app).commands["serve"]  # type: ignore[attr-defined]
    known = {option for parameter in serve.params for option in parameter.opts}
    for docs in (*map(render, VALUES), render("values", "--set", "llm.pools.h100.hungSeconds=90")):
        for _, pod in pods(docs):
            for container in pod["spec"]["containers"]:
                if container["name"] == "llm-server":
                    assert {argument.partition("=")[0] for argument in container["args"]} <= known
    (container,) = pool(docs)["containers"]
    assert argument(container, "hung-after") == "90"
    assert not any("hung-after" in text for text in pool(render())["containers"][0]["args"]), "the profile's"


def test_the_bank_s_authorities_are_trusted_by_every_pod_of_ours_that_speaks_with_others() -> None:
    docs = render("values", "--set", "caBundle.configMap=bank-ca,caBundle.key=bundle.pem")
    found = set()
    for _, pod in pods(docs):
        for container in pod["spec"]["containers"]:
            if container["name"] in {"chatbot", "ingest", "llm-server", "fetch"}:
                found.add(container["name"])
                assert environment(container)["SSL_CERT_FILE"] == "/etc/bank-ca/bundle.pem"
                (mount,) = [m for m in container["volumeMounts"] if m["name"] == "bank-ca"]
                assert mount == {"name": "bank-ca", "mountPath": "/etc/bank-ca", "readOnly": True}
                (volume,) = [v for v in pod["spec"]["volumes"] if v["name"] == "bank-ca"]
                assert volume["configMap"] == {"name": "bank-ca"}
    assert found == {"chatbot", "ingest", "llm-server", "fetch"}
