"""What the code offers, the documents name: errors, events, make targets.

Without a row, users cannot know of an entry; without an entry, a row promises what does not exist.
(`tests/golden` protects the entries themselves from unnoticed changes.)
"""

import re
from pathlib import Path

import pytest

from chatbot.errors import ChatError
from ingest.errors import IngestError
from tests.golden.contracts import descendants

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
API = (ROOT / "docs/api.md").read_text("utf-8")
SERVICES = pytest.mark.parametrize(
    ("root", "section"), [(ChatError, "Errors of the chat API"), (IngestError, "Errors of the documents API")]
)


@SERVICES
def test_no_two_errors_share_a_code(root: type[ChatError | IngestError], section: str) -> None:
    codes = [kind.code for kind in {root, *descendants(root)}]
    assert len(codes) == len(set(codes)), section


def test_every_make_target_is_explained() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = re.findall(r"^([a-z]+):(.*)$", makefile, re.MULTILINE)
    assert targets
    assert [name for name, rest in targets if "## " not in rest] == []
    for name in ("run", "test", "check", "faults", "evals", "gates", "bench", "charts"):
        assert f"make {name}" in README


def test_version_and_changelog_agree() -> None:
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE)
    assert version
    assert f"## {version[1]}" in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_links_between_documents_resolve() -> None:
    for page in [ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("*.md")]:
        for target in re.findall(r"\]\((?!http|#)([^)#]+)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
