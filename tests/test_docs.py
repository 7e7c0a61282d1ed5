"""What the code offers, the documents name: settings, errors, events, metrics, make targets."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from chatbot import errors
from chatbot.events import EVENTS
from chatbot.metrics import Metrics as ChatMetrics
from chatbot.settings import Settings as ChatSettings
from ingest.metrics import Metrics as IngestMetrics
from ingest.settings import Settings as IngestSettings

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
METRICS = (ROOT / "docs/metrics.md").read_text("utf-8")


def error_classes(root: type[errors.ChatError] = errors.ChatError) -> Iterator[type[errors.ChatError]]:
    for child in root.__subclasses__():
        yield child
        yield from error_classes(child)


@pytest.mark.parametrize("error", list(dict.fromkeys(error_classes())), ids=str)
def test_every_error_stands_in_its_tree(error: type[errors.ChatError]) -> None:
    tree = errors.__doc__ or ""
    assert re.search(rf"── {error.__name__} +{error.status} {error.code} ", tree), (
        f"{error.__name__} is not in the tree"
    )


def test_no_two_errors_share_a_code() -> None:
    codes = [error.code for error in set(error_classes())]
    assert len(codes) == len(set(codes))


def registries() -> Iterator[CollectorRegistry]:
    yield ChatMetrics().registry
    yield IngestMetrics().registry


def test_every_metric_is_documented_with_its_labels() -> None:
    for registry in registries():
        for metric in registry.collect():
            name = f"{metric.name}_total" if metric.type == "counter" else metric.name
            assert f"`{name}`" in METRICS, f"{name} is not in docs/metrics.md"


def test_every_documented_metric_is_emitted() -> None:
    emitted = set()
    for registry in registries():
        emitted |= {f"{m.name}_total" if m.type == "counter" else m.name for m in registry.collect()}
    documented = set(re.findall(r"^\| `((?:chatbot|ingest)_\w+)`", METRICS, re.MULTILINE))
    assert documented == emitted


@pytest.mark.parametrize("settings", [ChatSettings, IngestSettings], ids=["chatbot", "ingest"])
def test_every_setting_is_documented(settings: type[ChatSettings] | type[IngestSettings]) -> None:
    silent = [name for name in settings.model_fields if not re.search(rf"`{name.upper()}(__\w+)?`", README)]
    assert silent == [], "settings that the README does not name"


def test_every_make_target_is_explained() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = re.findall(r"^([a-z]+):(.*)$", makefile, re.MULTILINE)
    assert targets
    assert [name for name, rest in targets if "## " not in rest] == []
    for name in ("run", "test", "check", "faults", "evals", "gates", "bench", "charts"):
        assert f"make {name}" in README


def test_every_event_of_the_stream_is_in_the_contract() -> None:
    assert set(EVENTS) == {"accepted", "queued", "sources", "token", "citation", "notice", "done", "error"}


def test_version_and_changelog_agree() -> None:
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE)
    assert version
    assert f"## {version[1]}" in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_links_between_documents_resolve() -> None:
    for page in [ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("*.md")]:
        for target in re.findall(r"\]\((?!http|#)([^)#]+)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
