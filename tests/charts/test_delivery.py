"""Images, the compose file and the workflows: they are pinned, run without root, and use the Makefile's targets."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from chatbot.api import AUDIENCE, ISSUER, key_pair
from chatbot.settings import Settings as ChatSettings
from ingest.settings import Settings as StaffSettings
from tests.charts.rendering import CHART, ROOT, Doc, helm, of_kind, render, template, tool

DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
FINAL = ("chatbot", "ingest", "ingest-batch", "llm-server", "llm-server-cpu")
COMPOSE: Doc = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yaml"))


def stage(name: str) -> str:
    """Return the instructions of one stage."""
    stage = re.search(rf"^FROM \S+ AS {name}\n(.*?)(?=^FROM |\Z)", DOCKERFILE, re.MULTILINE | re.DOTALL)
    assert stage, name
    return stage[1]


def test_hadolint_finds_nothing() -> None:
    command = [tool("tools/bin/hadolint"), str(ROOT / "Dockerfile")]
    completed = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    assert completed.returncode == 0, completed.stdout


@pytest.mark.parametrize("target", FINAL)
def test_an_image_runs_as_a_user_that_owns_no_file(target: str) -> None:
    lines = stage(target).splitlines()
    assert "USER 10001:10001" in lines
    last_copy = max(n for n, line in enumerate(lines) if line.startswith(("COPY", "RUN")))
    assert lines.index("USER 10001:10001") > last_copy
    assert not re.search(r"COPY --chown", DOCKERFILE)


def test_weights_and_tools_stay_out_of_images() -> None:
    instructions = "\n".join(line for line in DOCKERFILE.splitlines() if not line.startswith("#"))
    assert "fetch" not in instructions
    assert "hf download" not in instructions
    assert "sed '/^# checks and tests/,$d' requirements/dev.in" in stage("services")
    requirements = (ROOT / "requirements/dev.in").read_text("utf-8")
    services, marker, tools = requirements.partition("# checks and tests")
    assert marker
    for package in ("fastapi", "redis", "qdrant-client", "sqlalchemy", "asyncpg", "pypdfium2", "sentence-transformers"):
        assert package in services
    assert "--override requirements/never.txt" in stage("services")
    for package in ("pytest", "ruff", "mypy", "playwright"):
        assert package in tools
        assert package not in services


def test_the_build_context_holds_exactly_what_the_dockerfile_copies() -> None:
    context = {
        line[1:].rstrip("/") for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line[:1] == "!"
    }
    copied = set()
    for line in re.findall(r"^COPY (?!--from)(.*)", DOCKERFILE, re.MULTILINE):
        copied |= {part.rstrip("/") for part in line.split()[:-1]}
    assert copied == context
    assert all((ROOT / part).exists() for part in copied)


def test_compose_pins_its_images_and_listens_on_loopback_only() -> None:
    for name, service in COMPOSE["services"].items():
        assert ("build" in service) != ("image" in service), name
        if "image" in service:
            assert re.search(r":v?\d+\.\d+", service["image"]), f"{name}: {service['image']}"
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        if "build" in service:
            assert service["read_only"] is True
            assert service["cap_drop"] == ["ALL"]
            assert service["build"]["target"] in FINAL


def test_compose_runs_the_chart_s_versions_of_stores() -> None:
    images = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))["images"]
    for service, name in {"redis": "redis", "redis-exporter": "redisExporter", "postgres": "postgres"}.items():
        repository = images[name]["repository"].removeprefix("library/")
        assert COMPOSE["services"][service]["image"] == f"{repository}:{images[name]['tag']}"
    qdrant = COMPOSE["services"]["qdrant"]["image"]
    assert f"{qdrant}-unprivileged" == f"{images['qdrant']['repository']}:{images['qdrant']['tag']}"


def test_compose_s_services_boot_with_what_it_sets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _, public = key_pair(tmp_path)
    for name, settings in (("chatbot", ChatSettings), ("ingest", StaffSettings)):
        variables = COMPOSE["services"][name]["environment"]
        unknown = {v for v in variables if v.split("__")[0].lower() not in settings.model_fields}
        assert unknown == set()
        for variable, value in variables.items():
            monkeypatch.setenv(variable, value)
        assert Path(variables["AUTH__PUBLIC_KEY_FILE"]).name == public.name
        auth = settings().auth
        assert auth is not None
        assert (auth.issuer, auth.audience) == (ISSUER, AUDIENCE)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_has_few_permissions_and_runs_pinned_actions(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text("utf-8"))
    assert workflow["permissions"] == {}
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    for name, job in workflow["jobs"].items():
        assert set(job["permissions"].values()) <= {"read", "write"}
        assert job["permissions"].get("contents") == "read", name
        assert job["timeout-minutes"] <= 120
        for step in job["steps"]:
            if "uses" in step:
                assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", step["uses"]), step["uses"]
                if "checkout" in step["uses"]:
                    assert step["with"]["persist-credentials"] is False
            else:
                # Text that outsiders write (a branch's name) reaches a shell only through the environment.
                assert "${{" not in step["run"], step["run"]
                assert {target for target in re.findall(r"^make ([a-z]+)", step["run"])} <= targets


def test_ci_runs_every_check_of_the_makefile() -> None:
    runs = "\n".join(
        step.get("run", "")
        for path in WORKFLOWS
        for job in yaml.safe_load(path.read_text("utf-8"))["jobs"].values()
        for step in job["steps"]
    )
    assert {"check", "test", "charts"} <= set(re.findall(r"make ([a-z]+)", runs))


def test_make_charts_installs_every_tool_without_which_its_tests_are_skipped() -> None:
    target = re.search(r"^charts:(.*)##.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert target
    assert "setup" in target[1].split(), "the recorded metrics are compared with the vLLM in .venv-llm"
    assert "scripts/chart_parts" in target[2]
    script = (ROOT / "scripts/chart_parts").read_text("utf-8")
    for package in ("prometheus", "prometheus-redis-exporter", "npm", "postgresql"):
        assert f"missing+=({package})" in script


def test_a_gpu_pool_is_selected_by_what_its_documented_command_declares() -> None:
    operations = (ROOT / "docs/operations.md").read_text("utf-8")
    table = operations.partition("## GPU node pools")[2].partition("None of these commands")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(rows) == 5
    for row in rows:
        assert re.search(r"bank-chatbot/pool(=|: )h100", row), row
        assert "nvidia.com/gpu" in row, row
    for name in ("values", "values-staging", "values-prod", "values-airgapped"):
        for doc in of_kind(render(name), "StatefulSet"):
            spec = doc["spec"]["template"]["spec"]
            if "runtimeClassName" in spec:
                assert set(spec["nodeSelector"]) == {"bank-chatbot/pool"}, doc["metadata"]["name"]


def release_digests(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts/release_digests"), str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603


@pytest.fixture
def pushed(tmp_path: Path) -> Path:
    """A folder of digests as the release's jobs write it."""
    for n, target in enumerate(FINAL):
        (tmp_path / f"digest-{target}").mkdir()
        image = f"ghcr.io/bank/chatbot/{target}@sha256:{n:064x}\n"
        (tmp_path / f"digest-{target}" / target).write_text(image, "utf-8")
    return tmp_path


def test_a_release_s_digests_become_values(pushed: Path) -> None:
    images = yaml.safe_load(release_digests(pushed).stdout)["images"]
    assert images["llmServer"] == {
        "registry": "ghcr.io",
        "repository": "bank/chatbot/llm-server",
        "digest": f"sha256:{FINAL.index('llm-server'):064x}",
    }
    (pushed / "digest-ingest" / "ingest").write_text("ghcr.io/bank/chatbot/ingest:latest\n", "utf-8")
    completed = release_digests(pushed)
    assert completed.returncode != 0
    assert "holds no image by digest" in completed.stderr


def test_argo_cd_s_example_pins_production_by_the_release_s_digests(pushed: Path) -> None:
    digests = pushed / "digests.yaml"
    digests.write_text(release_digests(pushed).stdout, "utf-8")
    chart, values = yaml.safe_load((ROOT / "charts/argocd-application.yaml").read_text("utf-8"))["spec"]["sources"]
    own, released = chart["helm"]["valueFiles"]
    assert released == f"${values['ref']}/bank-chatbot/digests.yaml"
    options = [f"--set={parameter['name']}={parameter['value']}" for parameter in chart["helm"]["parameters"]]
    completed = template(own.removesuffix(".yaml"), "-f", str(digests), *options)
    assert completed.returncode == 0, completed.stderr
    images = set(re.findall(r"image: (\S+)", completed.stdout))
    assert {image.split("@")[0] for image in images} == {
        f"registry.bank.internal/bank/chatbot/{name}:0.1.0" for name in ("chatbot", "ingest", "llm-server")
    }
    assert all(re.search(r"@sha256:[0-9a-f]{64}$", image) for image in images)
    bare = template(own.removesuffix(".yaml"), *options)
    assert "image-without-digest: images." in bare.stderr
    canary = ["--set=chatbot.canary.enabled=true", "--set=chatbot.canary.tag=0.2.0"]
    mixed = template(own.removesuffix(".yaml"), "-f", str(digests), *options, *canary)
    assert "image-without-digest: chatbot.canary" in mixed.stderr


def test_a_release_s_chart_carries_its_version(tmp_path: Path) -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/release.yaml").read_text("utf-8"))
    (step,) = [step for step in workflow["jobs"]["chart"]["steps"] if "helm package" in step.get("run", "")]
    assert step["env"]["VERSION"] == "${{ github.ref_name }}"
    (command,) = [line for line in step["run"].splitlines() if line.startswith("helm package")]
    (tmp_path / "helm").symlink_to(tool("helm3"))
    variables = {"PATH": f"{tmp_path}:/usr/bin:/bin", "HOME": str(tmp_path), "VERSION": "v7.8.9"}
    command += f" --destination {tmp_path}"
    subprocess.run(["/bin/bash", "-c", command], cwd=ROOT, env=variables, check=True, capture_output=True)  # noqa: S603
    completed = helm(3, "template", "bank", str(tmp_path / "bank-chatbot-7.8.9.tgz"))
    assert "image: registry.example.com/bank-chatbot/chatbot:7.8.9" in completed.stdout
