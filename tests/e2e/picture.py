"""Take README's picture on a running `make run`: `python -m tests.e2e.picture [URL]`.

`docs/page.sha256` holds the digest of what the picture shows: the page's files, the bank's texts and the sample
documents. `tests/test_docs.py` fails when they change, until the picture is taken again.
"""

import hashlib
import sys
from pathlib import Path

import anyio

from tests.e2e.browser import ask, finished, launched, opened

ROOT = Path(__file__).parents[2]
PICTURE = ROOT / "docs/page.png"
DIGEST = ROOT / "docs/page.sha256"
SHOWN = ("chatbot/api/web", "edge/web", "evals/datasets/hanbit/documents", "evals/datasets/hanbit/bank.yaml")
ADDRESS = "http://127.0.0.1:8000"
QUESTION = "What is the fee for an overseas remittance?"
"""README's own question."""


def digest() -> str:
    """Return the SHA-256 of the names and contents of the files that the picture shows."""
    paths = [path for place in SHOWN for path in (ROOT / place, *(ROOT / place).rglob("*")) if path.is_file()]
    total = hashlib.sha256()
    for path in sorted(paths):
        total.update(f"{path.relative_to(ROOT).as_posix()}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


async def take(url: str) -> None:
    """Ask as a new customer, open the first citation of the finished answer, and write the picture and its digest."""
    async with launched() as browser, opened(browser, url, width=1100, height=800, language="en-US") as (page, _):
        answer = await ask(page, QUESTION)
        await finished(answer)
        await answer.locator(".cite").first.click()
        await page.locator("#passage mark").first.wait_for()
        await page.screenshot(path=PICTURE)
    DIGEST.write_text(f"{digest()}\n", "utf-8")


if __name__ == "__main__":
    anyio.run(take, sys.argv[1] if len(sys.argv) > 1 else ADDRESS)
