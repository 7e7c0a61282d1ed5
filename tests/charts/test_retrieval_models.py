"""The embedder and the reranker of a release, at each of their places; profiles of one's own; the job that fetches."""

import json
import os
from pathlib import Path

import anyio
import pytest
import yaml

from chatbot.retrieval import RerankerSettings
from knowledge.embedding import EmbedderSettings
from knowledge.profiles import PROFILES
from llm_server.profile import load_profile
from tests.charts.network import allowed, components
from tests.charts.rendering import NAME, Doc, named, of_kind, render, tool
from tests.hub import REVISION, Hub, serving_hub
from tests.tiny_embedder import tiny_weights

BANK = [{"ipBlock": {"cidr": "10.60.0.0/28"}}]
SERVICES = ("chatbot", "ingest", "ingest-worker")
E5 = "/models/e5-small"


def pod(docs: object, component: str) -> Doc:
    spec: Doc = named(docs, "Deployment", f"{NAME}-{component}")["spec"]["template"]["spec"]  # type: ignore[arg-type]
    return spec


def waits_for(docs: object, component: str) -> str:
    """Return the script of the init container that waits for weights; empty where there is none."""
    return "".join(
        init["args"][0] for init in pod(docs, component).get("initContainers", []) if init["name"] == "await-weights"
    )


def job_script(docs: object) -> str:
    (job,) = [doc for doc in of_kind(docs, "Job") if "-weights-" in doc["metadata"]["name"]]  # type: ignore[arg-type]
    (script,) = job["spec"]["template"]["spec"]["containers"][0]["args"]
    return str(script)


def with_values(tmp_path: Path, values: object) -> object:
    file = tmp_path / "values.yaml"
    file.write_text(json.dumps(values), "utf-8")
    return render("values", "-f", str(file))


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
        policy = named(docs, "NetworkPolicy", f"{NAME}-{component}")["spec"]["egress"]  # type: ignore[arg-type]
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
    assert EmbedderSettings(model="BAAI/bge-m3", revision=REVISION).below(Path("/models")).folder == Path(folder)
    for component in SERVICES:
        waits = waits_for(docs, component)
        assert f"until ls {folder}/fetched.json " in waits
        assert f"until ls {folder}/openvino/*/model.xml " in waits
        assert E5 not in waits
        given = settings_of(pod(docs, component)["containers"][0], "EMBEDDER__")
        assert given == {"model": "BAAI/bge-m3", "revision": REVISION}
    script = job_script(docs)
    assert f"llm-server fetch bank/a@{'0' * 40} BAAI/bge-m3@{REVISION}\n" in script
    (job,) = [doc for doc in of_kind(docs, "Job") if "-weights-" in doc["metadata"]["name"]]  # type: ignore[arg-type]
    (token,) = [e for e in job["spec"]["template"]["spec"]["containers"][0]["env"] if e["name"] == "HF_TOKEN"]
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
        spec = named(docs, "StatefulSet", f"{NAME}-llm-{name}")["spec"]["template"]["spec"]  # type: ignore[arg-type]
        probe = spec["containers"][0]["startupProbe"]["exec"]["command"][2]
        compile(probe, "probe", "exec")
        assert f"/v1/{path}" in probe
        assert f'"model": "{served}"' in probe
        scaler = named(docs, "ScaledObject", f"{NAME}-llm-{name}")["spec"]  # type: ignore[arg-type]
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
    entries = yaml.safe_load(named(docs, "ConfigMap", f"{NAME}-models")["data"]["models.yaml"])  # type: ignore[arg-type]
    assert [entry["name"] for entry in entries] == ["h100"], "no customer's question goes to these"


def test_who_writes_passages_reaches_the_embedder_s_pool_and_no_other(tmp_path: Path) -> None:
    docs = with_values(tmp_path, RETRIEVAL)
    parts = {component.name: component for component in components(docs)}  # type: ignore[arg-type]
    reached = {
        (source, target)
        for source in ("chatbot", *SERVICES)
        for target in ("llm-embed", "llm-rerank", "llm-h100")
        if allowed(docs, parts[source], parts[target], 8000)  # type: ignore[arg-type]
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
    text = named(docs, "ConfigMap", f"{NAME}-profiles")["data"]["mine.yaml"]  # type: ignore[arg-type]
    (tmp_path / "mine.yaml").write_text(text, "utf-8")
    assert load_profile(str(tmp_path / "mine.yaml")).engine_args == {"enable_lora": True}
    spec = named(docs, "StatefulSet", f"{NAME}-llm-h100")["spec"]["template"]["spec"]  # type: ignore[arg-type]
    for container in (spec["containers"][0], pod(docs, "chatbot")["containers"][0]):
        assert {"name": "profiles", "mountPath": "/etc/profiles", "readOnly": True} in container["volumeMounts"]
    assert "--profile=/etc/profiles/mine.yaml" in spec["containers"][0]["args"]
    (entry,) = yaml.safe_load(named(docs, "ConfigMap", f"{NAME}-models")["data"]["models.yaml"])  # type: ignore[arg-type]
    assert (entry["profile"], entry["model"]) == ("/etc/profiles/mine.yaml", "our-own")
    assert f"bring bank/own {REVISION} /models/mine/{REVISION}" in job_script(docs)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_weights(tmp_path_factory.getbasetemp())


@pytest.mark.anyio
async def test_the_job_s_script_fetches_from_a_mirror_of_the_hub(tmp_path: Path, weights: Path) -> None:
    """The rendered script itself, with `llm-server` and `hf` as in the image, against a server with the hub's API."""
    hf = Path(tool("helm4")).parents[2] / ".venv-llm/bin/hf"
    if not hf.exists():
        pytest.skip("scripts/setup brings hf with vLLM")
    mine = yaml.safe_load((PROFILES / "h100.yaml").read_text("utf-8"))
    mine["hub"] = {"name": "bank/tiny", "revision": REVISION}
    docs = with_values(
        tmp_path,
        {
            "embedder": {"model": "bank/tiny", "revision": REVISION},
            "llm": {"profiles": {"mine": mine}, "pools": {"h100": {"profile": "mine"}}},
        },
    )
    models = tmp_path / "models"
    models.mkdir()
    script = job_script(docs).replace("/models", str(models))
    async with serving_hub(tmp_path, weights / "e5-small") as hub:
        finished = await anyio.run_process(
            ["bash", "-euo", "pipefail", "-c", script],
            env=job_environment(tmp_path, models, hub, hf.parent),
            check=False,
            stderr=None,
        )
    assert finished.returncode == 0
    embedder, served = models / f"bank--tiny@{REVISION[:12]}", models / "mine" / REVISION
    assert (embedder / "fetched.json").is_file()
    assert list(embedder.glob("openvino/*/model.xml"))
    assert json.loads((served / "weights.json").read_text("utf-8")) == {"name": "bank/tiny", "revision": REVISION}
    copies = [(folder / "model.safetensors").read_bytes() for folder in (hub.folder, embedder, served)]
    assert copies[0] == copies[1] == copies[2]


def job_environment(tmp_path: Path, models: Path, hub: Hub, hf: Path) -> dict[str, str]:
    ours = Path(__file__).parents[2] / ".venv/bin"
    return {
        "PATH": f"{ours}:{hf}:/usr/bin:/bin",
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),  # noqa: TID251
        "HOME": str(tmp_path),
        "WEIGHTS_DIR": str(models),
        "HF_ENDPOINT": hub.url,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
