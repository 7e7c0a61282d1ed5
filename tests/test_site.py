"""The documentation site has every page of the repository, and no link in it leads nowhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(path.relative_to(ROOT) for path in [*ROOT.glob("docs/**/*.md"), *ROOT.glob("*.md")])


def write_site(folder: Path, *url: str) -> Path:
    """Write the site's sources, and return the folder of its pages."""
    command = [sys.executable, str(ROOT / "scripts/site"), str(folder), *url]
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603
    return folder / "pages"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_site(tmp_path_factory.mktemp("site") / "site")


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_a_page_is_on_the_site_and_in_its_order(pages: Path, page: Path) -> None:
    assert (pages / page).exists(), "scripts/site has no place for it"
    order = (pages.parent / "mkdocs.yml").read_text("utf-8")
    assert len(re.findall(rf"(- |: ){re.escape(str(page))}$", order, re.MULTILINE)) == 1


def test_links_lead_to_pages_of_the_site(pages: Path) -> None:
    for page in pages.rglob("*.md"):
        for target in re.findall(r"\]\((?!http|#)([^)#]+)", page.read_text("utf-8")):
            assert (page.parent / target).is_file(), f"{page.name} links to {target}"


def test_a_link_to_code_leads_to_the_repository_where_its_address_is_given(pages: Path, tmp_path: Path) -> None:
    linked = write_site(tmp_path / "site", "https://git.example/bank")
    links = re.findall(r"https://git\.example/bank/\S+?(?=\))", "".join(p.read_text() for p in linked.rglob("*.md")))
    assert links
    for link in links:
        assert (ROOT / link.removeprefix("https://git.example/bank/")).exists(), link
    assert "https://git.example" not in "".join(p.read_text() for p in pages.rglob("*.md"))


def test_code_on_a_page_is_left_as_it_is(pages: Path) -> None:
    fenced = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
    for page in PAGES:
        assert fenced.findall((pages / page).read_text("utf-8")) == fenced.findall((ROOT / page).read_text("utf-8"))
