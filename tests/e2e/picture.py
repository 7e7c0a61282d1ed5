"""Takes the README's picture of the customers' page of a running product: `python -m tests.e2e.picture [URL]`."""

import sys
from pathlib import Path

import anyio

from tests.e2e.browser import ask, finished, launched, opened

PICTURE = Path(__file__).parents[2] / "docs/page.png"
WHERE = "http://127.0.0.1:8000"
FIRST_QUESTION = "한빛 정기예금을 중간에 해지하면 이자는 어떻게 되나요?"


async def take(url: str, question: str = FIRST_QUESTION) -> None:
    """Ask as a new customer, open the first citation of the finished answer, and write the picture."""
    async with launched() as browser, opened(browser, url, width=1100, height=800) as (page, _):
        answer = await ask(page, question)
        await finished(answer)
        await answer.locator(".cite").first.click()
        await page.locator("#passage mark").first.wait_for()
        await page.screenshot(path=PICTURE)


if __name__ == "__main__":
    anyio.run(take, sys.argv[1] if len(sys.argv) > 1 else WHERE)
