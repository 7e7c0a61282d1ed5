"""The embedder and the reranker of a release, at each of their places; custom profiles; the job of the weights."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

import yaml

from chatbot.retrieval import RerankerSettings
from knowledge.embedding import EmbedderSettings
from knowledge.profiles import PROFILES
from llm_server.profile import load_profile
from tests.charts.network import allowed, components
from tests.charts.rendering import NAME, Doc, named, of_kind, render
from tests.hub import REVISION

BANK = [{"ipBlock": {"cidr": "10.60.0.0/28"}}]
SERVICES = ("chatbot", "ingest", "ingest-worker")
E5 = "/models/e5-small"


def pod(docs: Sequence[Doc], component: str) -> Doc:
    spec: Doc = named(docs, "Deployment", f"{NAME}-{component}")["spec"]["template"]["spec"]
    return spec


def waits_for(docs: Sequence[Doc], component: str) -> str:
    """Return the script of the init container that waits for weights; empty where there is none."""
    return "".join(
        init["args"][0] for init in pod(docs, component).get("initContainers", []) if init["name"] == "await-weights"
    )


def weights_container(docs: Sequence[Doc]) -> Doc:
    """Return the container of the job that fetches weights."""
    (job,) = [doc for doc in of_kind(docs, "Job") if "-weights-" in doc["metadata"]["name"]]
    container: Doc = job["spec"]["template"]["spec"]["containers"][0]
    return container


def job_script(docs: Sequence[Doc]) -> str:
    (script,) = weights_container(docs)["args"]
    return str(script)


def with_values(tmp_path: Path, values: object) -> list[Doc]:
    file = tmp_path / "values.yaml"
    file.write_text(json.dumps(values), "utf-8")
    return list(render("values", "-f", str(file)))


def settings_of(container: Doc, prefix: str) -> dict[str, str]:
    """Return the variables of a settings model by its fields' names, from values and from the Secret."""
    given = {entry["name"]: entry.get("value", "secret") for entry in container["env"]}
    return {name.removeprefix(prefix).lower(): value for name, value in given.items() if name.startswith(prefix)}


def test_servers_of_retrieval_are_reached_with_key_and_certificates_and_nobody_waits_for_e5(tmp_path: Path) -> None:
    place = {"keyInSecret": True, "tls": {"secret": "bank-tls", "clientCertificate": True}}
    docs = with_values(
        tmp_path,
        {
            "embedder": {"url": "https://embed.bank.internal", "model": "bge-m3", "tokenizer": "bge-m3", **place},
            "reranker": {"url": "https://rerank.bank.internal", "model": "bge-reranker-v2-m3", **place},
            "networkPolicy": {
                "egress": {"embedder": {"to": BANK, "port": 8443}, "reranker": {"to": BANK, "port": 9443}}
            },
        },
    )
    for component in SERVICES:
        spec = pod(docs, component)
        places = ("embedder", "reranker") if component == "chatbot" else ("embedder",)
        mounted = {mount["name"]: mount["mountPath"] for mount in spec["containers"][0]["volumeMounts"]}
        for name, model in (("embedder", EmbedderSettings), ("reranker", RerankerSettings)):
            given = settings_of(spec["containers"][0], f"{name.upper()}__")
            assert bool(given) == (name in places), component
            assert given.keys() <= model.model_fields.keys()
            if given:
                files = {given[key] for key in ("ca_file", "cert_file", "key_file")}
                assert files == {f"/etc/{name}-tls/{file}" for file in ("ca.crt", "tls.crt", "tls.key")}
                assert given["api_key"] == "secret"
                assert mounted[f"{name}-tls"] == f"/etc/{name}-tls"
        assert E5 not in waits_for(docs, component)
        assert "/models/bge-m3/tokenizer.json" in waits_for(docs, component)
        policy = named(docs, "NetworkPolicy", f"{NAME}-{component}")["spec"]["egress"]
        ports = {rule["ports"][0]["port"] for rule in policy if rule["to"] == BANK}
        assert ports == ({8443, 9443} if component == "chatbot" else {8443})
    assert "e5-small" not in job_script(docs)


def test_models_of_a_hub_are_fetched_at_their_commits_and_waited_for(tmp_path: Path) -> None:
    docs = with_values(
        tmp_path,
        {
            "embedder": {"model": "BAAI/bge-m3", "revision": REVISION},
            "weights": {"fetch": {"names": [f"bank/a@{'0' * 40}"], "tokenInSecret": True}},
        },
    )
    folder = f"/models/BAAI--bge-m3@{REVISION[:12]}"
    assert EmbedderSettings(model="BAAI/bge-m3", revision=REVISION).with_folder_in(Path("/models")).folder == Path(
        folder
    )
    for component in SERVICES:
        waits = waits_for(docs, component)
        assert f"until ls {folder}/fetched.json " in waits
        assert f"until ls {folder}/openvino/*/model.xml " in waits
        assert E5 not in waits
        given = settings_of(pod(docs, component)["containers"][0], "EMBEDDER__")
        assert given == {"model": "BAAI/bge-m3", "revision": REVISION}
    script = job_script(docs)
    assert f"llm-server fetch bank/a@{'0' * 40} BAAI/bge-m3@{REVISION}\n" in script
    (token,) = [entry for entry in weights_container(docs)["env"] if entry["name"] == "HF_TOKEN"]
    assert token["valueFrom"]["secretKeyRef"]["key"] == "HF_TOKEN"


RETRIEVAL = {
    "llm": {
        "pools": {
            name: {"profile": profile, "group": group, "placeholders": 0, "nodeSelector": {"bank-chatbot/pool": "l4"}}
            for name, profile, group in (("embed", "embedding", "embedder"), ("rerank", "reranking", "reranker"))
        }
    }
}


def test_pools_of_the_release_serve_the_models_of_retrieval(tmp_path: Path) -> None:
    docs = with_values(tmp_path, RETRIEVAL)
    for name, path, served in (("embed", "embeddings", "bge-m3"), ("rerank", "rerank", "bge-reranker-v2-m3")):
        spec = named(docs, "StatefulSet", f"{NAME}-llm-{name}")["spec"]["template"]["spec"]
        probe = spec["containers"][0]["startupProbe"]["exec"]["command"][2]
        compile(probe, "probe", "exec")
        assert f"/v1/{path}" in probe
        assert f'"model": "{served}"' in probe
        scaler = named(docs, "ScaledObject", f"{NAME}-llm-{name}")["spec"]
        assert [trigger["name"] for trigger in scaler["triggers"]] == ["vllm-waiting", "vllm-running"]
    hub = load_profile("embedding").hub
    assert hub
    tokenizer = f"/models/embedding/{hub.revision}"
    url = f"http://{NAME}-llm-embed.bank.svc.cluster.local:8000"
    for component in SERVICES:
        given = settings_of(pod(docs, component)["containers"][0], "EMBEDDER__")
        assert given == {"url": url, "model": "bge-m3", "tokenizer": tokenizer}
        assert f"until ls {tokenizer}/tokenizer.json " in waits_for(docs, component)
        assert E5 not in waits_for(docs, component)
    given = settings_of(pod(docs, "chatbot")["containers"][0], "RERANKER__")
    assert given == {"url": url.replace("embed", "rerank"), "model": "bge-reranker-v2-m3"}
    entries = yaml.safe_load(named(docs, "ConfigMap", f"{NAME}-models")["data"]["models.yaml"])
    assert [entry["name"] for entry in entries] == ["h100"], "no customer's question goes to these"


def test_writers_of_passages_reach_the_embedder_s_pool_only(tmp_path: Path) -> None:
    docs = with_values(tmp_path, RETRIEVAL)
    parts = {component.name: component for component in components(docs)}
    reached = {
        (source, target)
        for source in ("chatbot", *SERVICES)
        for target in ("llm-embed", "llm-rerank", "llm-h100")
        if allowed(docs, parts[source], parts[target], 8000)
    }
    writers = {(source, "llm-embed") for source in ("ingest", "ingest-worker")}
    assert reached == writers | {("chatbot", target) for target in ("llm-embed", "llm-rerank", "llm-h100")}


def test_a_profile_of_one_s_own_is_mounted_and_named_to_both(tmp_path: Path) -> None:
    mine = yaml.safe_load((PROFILES / "a100.yaml").read_text("utf-8"))
    mine |= {"served_name": "our-own", "engine_args": {"enable_lora": True}}
    mine["hub"] = {"name": "bank/own", "revision": REVISION}
    docs = with_values(
        tmp_path,
        {"llm": {"profiles": {"mine": mine}, "pools": {"h100": {"profile": "mine", "gpu": {"count": 2}}}}},
    )
    text = named(docs, "ConfigMap", f"{NAME}-profiles")["data"]["mine.yaml"]
    (tmp_path / "mine.yaml").write_text(text, "utf-8")
    assert load_profile(str(tmp_path / "mine.yaml")).engine_args == {"enable_lora": True}
    spec = named(docs, "StatefulSet", f"{NAME}-llm-h100")["spec"]["template"]["spec"]
    for container in (spec["containers"][0], pod(docs, "chatbot")["containers"][0]):
        assert {"name": "profiles", "mountPath": "/etc/profiles", "readOnly": True} in container["volumeMounts"]
    assert "--profile=/etc/profiles/mine.yaml" in spec["containers"][0]["args"]
    (entry,) = yaml.safe_load(named(docs, "ConfigMap", f"{NAME}-models")["data"]["models.yaml"])
    assert (entry["profile"], entry["model"]) == ("/etc/profiles/mine.yaml", "our-own")
    assert f"bring bank/own {REVISION} /models/mine/{REVISION}" in job_script(docs)


def program(file: Path, script: str) -> None:
    """Write a program that stands in for one of the image."""
    file.write_text(f"#!/bin/bash\n{script}\n", "utf-8")
    file.chmod(0o755)


def test_the_script_of_the_job_shows_a_folder_of_weights_once_it_is_whole(tmp_path: Path) -> None:
    models, programs = tmp_path / "models", tmp_path / "bin"
    for folder in (models, programs):
        folder.mkdir()
    script = job_script(render("values")).replace("/models", str(models))
    variables = {"PATH": f"{programs}:/usr/bin:/bin"}
    command = ["/bin/bash", "-euo", "pipefail", "-c", script]
    program(programs / "llm-server", f'echo "$@" >> {tmp_path}/fetched')
    program(programs / "hf", 'mkdir -p "${@: -1}"; exit 1')
    assert subprocess.run(command, env=variables, check=False).returncode == 1  # noqa: S603
    hub = load_profile("h100").hub
    assert hub
    folder = models / "h100" / hub.revision
    assert not folder.exists()
    program(programs / "hf", f'echo "$@" >> {tmp_path}/downloads; touch "${{@: -1}}/model.safetensors"')
    for _ in range(2):
        subprocess.run(command, env=variables, check=True)  # noqa: S603
    assert sorted(file.name for file in folder.iterdir()) == ["model.safetensors", "weights.json"]
    assert json.loads((folder / "weights.json").read_text("utf-8")) == {"name": hub.name, "revision": hub.revision}
    download = f"download {hub.name} --revision {hub.revision} --local-dir {folder}.unfinished"
    assert (tmp_path / "downloads").read_text("utf-8").splitlines() == [download], "the second run downloads nothing"
    assert (tmp_path / "fetched").read_text("utf-8").splitlines() == ["fetch e5-small"] * 3
