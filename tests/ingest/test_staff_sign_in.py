"""The staff page in Chromium, signed in at a certified provider: an upload, what the session may, and its ends."""

from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import Browser, FilePayload, Page, expect

from tests.conftest import free_port
from tests.e2e.browser import NEEDS_CHROMIUM, WAIT, Trouble, assert_accessible, launched
from tests.ingest import samples
from tests.ingest.bank import Bank, served
from tests.oidc_provider import NEEDS_PROVIDER, Provider, provider

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.services,
    pytest.mark.browser,
    pytest.mark.timeout(180),
    NEEDS_CHROMIUM,
    NEEDS_PROVIDER,
]


@pytest.fixture
async def browser() -> AsyncGenerator[Browser]:
    async with launched() as browser:
        yield browser


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def at(port: int) -> Iterator[Provider]:
    with provider(f"http://127.0.0.1:{port}", logout_at=f"http://127.0.0.1:{port}", seconds=2) as running:
        yield running


@pytest.fixture(scope="module")
def signing_in(
    weights: Path, redis_url: str, tmp_path_factory: pytest.TempPathFactory, at: Provider, port: int
) -> Iterator[Bank]:
    settings = at.environment("staff", "approver") | {"INGEST_PORT": str(port)}
    bank = Bank(tmp_path_factory.mktemp("signing-in"), weights, REDIS_URL=redis_url, **settings)
    with served(bank):
        yield bank


@asynccontextmanager
async def visiting(browser: Browser, place: str, *, language: str = "ko-KR") -> AsyncGenerator[Page]:
    """Open the page; afterwards nothing unexpected may have been in the console."""
    context = await browser.new_context(locale=language)
    context.set_default_timeout(WAIT)
    page = await context.new_page()
    trouble = Trouble(page)
    trouble.expected = ("asked http://localhost:", "401", "403")
    await page.goto(place)
    yield page
    assert trouble.unexpected() == []
    await context.close()


async def sign_in(page: Page, name: str) -> None:
    await expect(page.locator("#sign-in-link")).to_be_focused()
    await page.keyboard.press("Enter")
    await page.locator("input[name=who]").fill(name)
    await page.keyboard.press("Enter")


async def test_staff_sign_in_upload_work_on_with_renewed_tokens_and_sign_out_here_and_there(
    browser: Browser, signing_in: Bank, at: Provider
) -> None:
    async with visiting(browser, f"{signing_in.url}/#/documents") as page:
        await expect(page.locator("#token")).to_be_hidden()
        await assert_accessible(page)
        await sign_in(page, "kim")
        await expect(page.locator("#documents-title")).to_be_focused()  # where the page was before
        await expect(page.locator("#who-name")).to_have_text("kim kim님")
        before = at.renewed()
        await page.locator("[data-view=upload]").click()
        terms = FilePayload(name="terms.md", mimeType="text/markdown", buffer=samples.MARKDOWN.encode())
        await page.locator("#file-input").set_input_files(terms)
        await expect(page.locator("#files > li[data-state=done]")).to_have_count(1)
        await page.locator("[data-view=queue]").click()
        await expect(page.locator("#queue .cards > li")).to_have_count(1)
        await page.locator("[data-view=documents]").click()
        await expect(page.locator("#documents .cards > li")).to_have_count(1)
        assert at.renewed() > before
        await page.locator("#sign-out").click()
        await page.get_by_role("button", name="Sign out").click()
        await expect(page.locator("#sign-in-link")).to_be_focused()
