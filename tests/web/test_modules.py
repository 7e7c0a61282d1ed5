"""The pages' scripts, tested by node's own test runner; nothing is installed for it.

The scripts are tested as they are served: each page's own files and those of `edge/web` in one folder.
"""

import shutil
import subprocess
from pathlib import Path

import pytest

from edge.page import script_of
from evals.sample_bank import sample_banks

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SHARED = ROOT / "edge" / "web"
PAGES = {"customers": ROOT / "chatbot" / "api" / "web", "staff": ROOT / "ingest" / "api" / "web"}
NODE = shutil.which("node")

pytestmark = pytest.mark.skipif(NODE is None, reason="node is not installed")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both pages as they are served, and the tests beside them."""
    folder = tmp_path_factory.mktemp("web")
    for page, files in PAGES.items():
        shutil.copytree(files, folder / page)
        shutil.copytree(SHARED, folder / page, dirs_exist_ok=True)
        (folder / page / "bank.js").write_text(script_of(sample_banks().first), "utf-8")
    (folder / "ingest").symlink_to(ROOT / "ingest")  # whose reasons and refusals the page has sentences for
    (folder / "tests").mkdir()
    for script in HERE.glob("*.test.mjs"):
        shutil.copy(script, folder / "tests")
    return folder


def test_the_pure_parts_of_the_pages_hold(served: Path) -> None:
    tests = sorted(map(str, (served / "tests").iterdir()))
    done = subprocess.run([str(NODE), "--test", *tests], capture_output=True, text=True, timeout=60, check=False)  # noqa: S603
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_no_page_replaces_a_shared_file_by_its_own(page: Path) -> None:
    assert not {file.name for file in page.iterdir()} & {file.name for file in SHARED.iterdir()}
