"""TLS by the chart: every server shows a certificate that its clients verify, and every flow of the release is
encrypted; in a mesh the same flows are named by identity.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import permutations
from pathlib import Path

import pytest
import yaml
from sqlalchemy import text

from chatbot.settings import Settings as ChatSettings
from ingest.settings import Settings as StaffSettings
from knowledge.storage import UNAVAILABLE, open_engine
from knowledge.tls import TlsSettings
from tests.certificates import certificates
from tests.charts.network import allowed, components
from tests.charts.rendering import (
    MESH,
    NAME,
    TLS,
    VALUES,
    Doc,
    containers,
    environment,
    named,
    of_kind,
    pods,
    render,
)
from tests.postgres import SHARED, served_encrypted

SERVERS = {"chatbot", "ingest", "llm-server", "qdrant", "redis", "exporter", "postgres"}


def server_containers(docs: Sequence[Doc]) -> Iterator[tuple[str, Doc, Doc]]:
    """Yield (pod, pod template, container) of everything that listens."""
    for where, pod in pods(docs):
        for container in pod["spec"]["containers"]:
            if container["name"] in SERVERS:
                yield where, pod, container


@pytest.mark.parametrize("name", VALUES)
def test_every_server_has_its_certificate_and_no_address_inside_asks_for_plain_text(name: str) -> None:
    docs = render(name, *TLS)
    made = {doc["spec"]["secretName"]: doc["spec"] for doc in of_kind(docs, "Certificate")}
    for where, pod, container in server_containers(docs):
        (volume,) = [volume for volume in pod["spec"]["volumes"] if volume["name"] == "tls"]
        assert volume["secret"]["secretName"] in made, where
        assert volume["secret"]["defaultMode"] == 0o440, "PostgreSQL takes no key that others may read"
        assert {"name": "tls", "mountPath": "/etc/tls", "readOnly": True} in container["volumeMounts"], where
    inside = re.compile(rf"(?:http|redis)://(?:[^\s\"@]*@)?(?:{NAME}|127\.0\.0\.1)[-\w.:]*")
    assert inside.findall(yaml.safe_dump_all(docs)) == []
    databases = {
        e["DATABASE_URL"] for _, p in pods(docs) for c in containers(p) if "DATABASE_URL" in (e := environment(c))
    }
    assert all(url.endswith("?ssl=verify-full") for url in databases)


def test_a_certificate_has_every_name_that_somebody_asks_for() -> None:
    docs = render("values", *TLS)
    names = {doc["spec"]["secretName"]: set(doc["spec"]["dnsNames"]) for doc in of_kind(docs, "Certificate")}
    of_all = set().union(*names.values())
    text = yaml.safe_dump_all(docs)
    requested = set(re.findall(rf"(?:https|rediss)://(?:[^\s\"@]*@)?({NAME}[-\w.]*)", text))
    requested |= set(re.findall(rf"@({NAME}-postgres)", text))
    assert requested >= {f"{NAME}-redis", f"{NAME}-qdrant", f"{NAME}-postgres", f"{NAME}-chatbot"}
    assert requested - of_all == set()
    for monitor in of_kind(docs, "ServiceMonitor"):
        (endpoint,) = monitor["spec"]["endpoints"]
        tls = endpoint["tlsConfig"]
        assert endpoint["scheme"] == "https"
        assert tls["serverName"] in names[tls["ca"]["secret"]["name"]]


@pytest.mark.parametrize("name", VALUES)
def test_every_probe_over_http_asks_over_tls(name: str) -> None:
    for where, _, container in server_containers(render(name, *TLS)):
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            request = container.get(probe, {}).get("httpGet")
            assert request is None or request["scheme"] == "HTTPS", where


@pytest.mark.parametrize(("deployment", "kind"), [("chatbot", ChatSettings), ("ingest", StaffSettings)])
def test_a_service_boots_with_it_and_every_connection_inside_is_encrypted(
    deployment: str,
    kind: type[ChatSettings | StaffSettings],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    docs = render("values", *TLS)
    (container,) = named(docs, "Deployment", f"{NAME}-{deployment}")["spec"]["template"]["spec"]["containers"]
    secret = certificates(tmp_path / "tls")
    for mounted, made in (("tls.crt", "server.pem"), ("tls.key", "server.key"), ("ca.crt", "ca.pem")):
        (secret / made).rename(secret / mounted)
    for entry in container["env"]:
        value = re.sub(r"\$\(\w+\)", "s" * 16, entry.get("value", "s" * 16)).replace("/etc/tls", str(secret))
        if entry["name"] not in {"BANK_FILE", "MODELS_FILE"}:
            monkeypatch.setenv(entry["name"], value)
    models = tmp_path / "models.yaml"
    mounted_models = named(docs, "ConfigMap", f"{NAME}-models")["data"]["models.yaml"]
    models.write_text(mounted_models.replace("/etc/tls", str(secret)), "utf-8")
    monkeypatch.setenv("MODELS_FILE", str(models))
    settings = kind()
    assert settings.server_tls.scheme == "https"
    inside = [connection for connection in settings.connections() if NAME in connection.url]
    parts = {connection.part for connection in inside}
    assert parts >= {"Redis", "the database", "Qdrant", *(["the model h100"] if deployment == "chatbot" else [])}
    assert all(c.is_encrypted and c.tls.ca_file == secret / "ca.crt" for c in inside)


@pytest.mark.anyio
@pytest.mark.services
async def test_the_chart_s_postgresql_takes_no_connection_of_the_network_in_plain_text(tmp_path: Path) -> None:
    authority = certificates(tmp_path / "authority")
    rules = named(render("values", *TLS), "ConfigMap", f"{NAME}-postgres")["data"]["pg_hba.conf"]
    with served_encrypted(authority, rules) as postgres:
        postgres.query("CREATE ROLE bank_chatbot LOGIN PASSWORD 'secret'")
        at = f"postgresql+asyncpg://bank_chatbot:secret@127.0.0.1:{postgres.port}/{SHARED}"
        trusted = TlsSettings(ca_file=authority / "ca.pem")
        encrypted, plain = open_engine(f"{at}?ssl=verify-full", trusted), open_engine(f"{at}?ssl=disable")
        async with encrypted.connect() as connection:
            seen = await connection.scalar(text("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"))
        with pytest.raises(UNAVAILABLE, match="no encryption"):
            async with plain.connect():
                pass
        for engine in (encrypted, plain):
            await engine.dispose()
    assert seen is True


def test_the_gateway_verifies_both_apis() -> None:
    policies = of_kind(render("values-prod", *TLS), "BackendTLSPolicy")
    assert {policy["spec"]["targetRefs"][0]["name"] for policy in policies} == {f"{NAME}-chatbot", f"{NAME}-ingest"}
    assert all(policy["spec"]["validation"]["caCertificateRefs"][0]["name"] == "bank-ca" for policy in policies)


def permitted(docs: Sequence[Doc]) -> set[tuple[str, str, int]]:
    """Return (account or principal, component, port) of every flow that the mesh lets through."""
    flows = set()
    for policy in of_kind(docs, "AuthorizationPolicy"):
        for rule in policy["spec"].get("rules", []):
            component = policy["spec"]["selector"]["matchLabels"]["app.kubernetes.io/component"]
            for principal in rule["from"][0]["source"]["principals"]:
                account = principal.rpartition("/sa/")[2].removeprefix(f"{NAME}-")
                flows |= {(account, component, int(port)) for port in rule["to"][0]["operation"]["ports"]}
    return flows


@pytest.mark.parametrize("name", VALUES)
def test_the_mesh_names_the_flows_of_the_network_policies_by_identity(name: str) -> None:
    docs = render(name, *MESH)
    accounts = {}
    for _, pod in pods(docs):
        component = pod["metadata"]["labels"]["app.kubernetes.io/component"]
        accounts[component] = pod["spec"]["serviceAccountName"].removeprefix(f"{NAME}-")
    ports = (8000, 8001, 6333, 6379, 5432)
    by_network = {
        (accounts[source.name], target.name, port)
        for source, target in permutations(components(list(docs)), 2)
        for port in ports
        if allowed(list(docs), source, target, port)
    }
    outside = {"gateway", "prometheus"}
    by_mesh = permitted(docs)
    assert {flow for flow in by_mesh if flow[0] not in outside} == by_network
    assert {flow[1] for flow in by_mesh if flow[0] == "gateway"} == {
        c for c in accounts if c in {"chatbot", "chatbot-canary", "ingest"}
    }
    (mutual,) = of_kind(docs, "PeerAuthentication")
    assert mutual["spec"]["mtls"] == {"mode": "STRICT"}
    deny_all = named(docs, "AuthorizationPolicy", f"{NAME}-deny-all")["spec"]
    assert set(deny_all) == {"selector"}, "a policy without a rule lets nobody in"
