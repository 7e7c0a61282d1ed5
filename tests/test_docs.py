"""What the code offers, the documents name: errors, document formats, make targets.

Without a row, users cannot know of an entry; without an entry, a row promises what does not exist.
(`tests/golden` protects the entries themselves from unnoticed changes.)
"""

import re
from collections.abc import Iterator
from pathlib import Path

from ingest.parsing import Format
from knowledge.passage import LANGUAGES
from tests.e2e.picture import DIGEST, digest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text("utf-8")


def test_every_document_format_is_named_wherever_staff_read_which_there_are() -> None:
    page = (ROOT / "ingest/api/web/texts.js").read_text("utf-8").replace("텍스트", "text")
    rows = re.findall(r"^\| ([^|]+) \|", (ROOT / "docs/formats.md").read_text("utf-8"), re.MULTILINE)
    readme = README.partition("[what is read of each]")[0].rpartition("\n\n")[2]
    lists = {"README.md": readme, "docs/formats.md": ", ".join(rows)}
    lists |= {f"texts.js {n}": names for n, names in enumerate(re.findall(r'drop_formats: "(.+)"', page))}
    assert len(lists) == 2 + len(LANGUAGES)
    for place, names in lists.items():
        assert [kind for kind in Format if not re.search(rf"\b{kind}\b", names, re.IGNORECASE)] == [], place


def test_readme_and_workflows_install_the_same_packages() -> None:
    named = re.search(r"^apt-get install -y ([a-z0-9 .-]+)", README, re.MULTILINE)
    workflow = (ROOT / ".github/workflows/ci.yaml").read_text("utf-8").partition("  bare:")[2]
    installed = re.search(r"--no-install-recommends ([a-z0-9 .-]+?) >", workflow)
    assert named is not None
    assert installed is not None
    assert installed[1].split() == named[1].split()


WRITTEN = (
    *("chatbot", "ingest", "llm_server", "knowledge", "edge", "telemetry", "evals", "tests", "charts", "docs"),
    "compose",
)
KINDS = {".py", ".md", ".toml", ".yaml", ".yml", ".lua", ".js", ".css", ".html", ".tpl"}
SAMPLES = ("evals/datasets", "tests/e2e/documents")
ELSEWHERE = re.compile(r"(?i)\b(design|facts|style)(\.md)?,? (section|§)|\b(facts|style|design)\.md\b|\bshared/")
"""Papers that are not in this repository."""


def dangling(path: Path) -> Iterator[str]:
    """Yield the reasons that a text cites and that a reader of this repository cannot look up."""
    text = path.read_text("utf-8")
    yield from (match[0] for match in ELSEWHERE.finditer(text))
    for match in re.finditer(r"house rule (\d+)", text):
        if f"\n{match[1]}. **" not in CONTRIBUTING:
            yield match[0]
    for match in re.finditer(r"docs/decisions/(\d{4})", text):
        if not list(ROOT.glob(f"docs/decisions/{match[1]}-*.md")):
            yield match[0]
    for page in re.findall(r"(?<![\w/.-])(?:docs/(?:[\w-]+/)*[\w-]+|[A-Z]{6,})\.md\b", text):
        if not (ROOT / page).exists() and "NNNN" not in page:
            yield page


def written_files() -> Iterator[Path]:
    """Yield every text of ours: code, pages, charts and settings of tools, but no sample documents."""
    for path in [*ROOT.glob("*"), *(path for folder in WRITTEN for path in (ROOT / folder).rglob("*"))]:
        if (
            path.suffix in KINDS
            and not path.relative_to(ROOT).as_posix().startswith(SAMPLES)
            and path != Path(__file__)
        ):
            yield path


def test_every_reason_that_is_cited_can_be_looked_up_here() -> None:
    cited = {path.relative_to(ROOT).as_posix(): list(dangling(path)) for path in written_files()}
    assert "chatbot/turns/answering.py" in cited
    assert {name: reasons for name, reasons in cited.items() if reasons} == {}


def test_every_promise_names_tests_that_exist() -> None:
    rows = re.findall(r"^\| (.+) \| .+ \| (.+) \|$", (ROOT / "docs/reliability.md").read_text("utf-8"), re.MULTILINE)
    faults = [row for row in rows if row[0] != "fault" and not row[0].startswith("---")]
    assert len(faults) >= 20
    for fault, shown_by in faults:
        tests = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", shown_by)
        assert tests, f"nothing shows what is promised of: {fault}"
        for file, name in tests:
            code = (ROOT / file).read_text("utf-8")
            assert f"def {name}(" in code if name else "def test_" in code, f"{fault}: {file} has no {name}"


def test_links_between_documents_resolve() -> None:
    for page in [ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("*.md")]:
        for target in re.findall(r"\]\((?!http|#)([^)#]+)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_readmes_picture_shows_todays_page_and_documents() -> None:
    taken_of = DIGEST.read_text("utf-8").strip()
    assert taken_of == digest(), "run `make run`, and beside it `.venv/bin/python -m tests.e2e.picture`"
