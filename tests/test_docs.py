"""What the code offers, the documents name: errors, events, make targets.

Without a row, users cannot know of an entry; without an entry, a row promises what does not exist.
(`tests/golden` protects the entries themselves from unnoticed changes.)
"""

import re
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

import msgspec
import pytest

from chatbot.errors import ChatError
from chatbot.events import EVENTS, FinishReason, NoticeCode, Source, Sources
from ingest.errors import IngestError
from tests.golden.contracts import descendants

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
API = (ROOT / "docs/api.md").read_text("utf-8")
SERVICES = pytest.mark.parametrize(
    ("root", "section"), [(ChatError, "Errors of the chat API"), (IngestError, "Errors of the documents API")]
)


def table(page: str, heading: str) -> Iterator[list[str]]:
    """Yield the cells of each row of the table below a heading."""
    section = re.split(r"^#", page.partition(f"# {heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    for row in re.findall(r"^\| (`.*) \|$", section, re.MULTILINE):
        yield [cell.strip() for cell in row.split("|")]


def names(cell: str) -> list[str]:
    """Return what a cell names; a parenthesis says what values it takes."""
    return re.findall(r"`([^`]+)`", re.sub(r"\([^)]*\)", "", cell))


@SERVICES
def test_every_error_is_documented_with_its_status_and_whether_to_retry(
    root: type[ChatError | IngestError], section: str
) -> None:
    documented = {(*names(code), int(status), retry == "yes") for code, status, retry, _ in table(API, section)}
    assert documented == {(kind.code, kind.status, kind.retryable) for kind in {root, *descendants(root)}}


@SERVICES
def test_no_two_errors_share_a_code(root: type[ChatError | IngestError], section: str) -> None:
    codes = [kind.code for kind in {root, *descendants(root)}]
    assert len(codes) == len(set(codes)), section


def test_every_event_is_documented_with_its_fields() -> None:
    documented = {
        name: names(fields)
        for (name,), fields in ((names(row[0]), row[1]) for row in table(API, "Events of an answer"))
    }
    sent = {name: Source if kind is Sources else kind for name, kind in EVENTS.items()}
    assert documented == {
        name: [field.encode_name for field in msgspec.structs.fields(kind)] for name, kind in sent.items()
    }


@pytest.mark.parametrize(("values", "section"), [(NoticeCode, "Codes of a notice"), (FinishReason, "Finish reasons")])
def test_every_notice_and_finish_reason_is_documented(values: type[StrEnum], section: str) -> None:
    assert [name for row in table(API, section) for name in names(row[0])] == list(values)


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
