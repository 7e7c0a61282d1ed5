"""The staff page in Chromium, signed in at a certified provider: an upload, what the session may, and its ends."""

from pathlib import Path

import pytest
from playwright.async_api import FilePayload, Page, expect

from tests.conftest import free_port
from tests.e2e.browser import NEEDS_CHROMIUM, WAIT, Trouble, assert_accessible, launched
from tests.ingest import samples
from tests.ingest.bank import Bank, served
from tests.oidc_provider import NEEDS_PROVIDER, provider

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.services,
    pytest.mark.browser,
    pytest.mark.timeout(180),
    NEEDS_CHROMIUM,
    NEEDS_PROVIDER,
]


async def test_staff_sign_in_upload_with_renewed_tokens_and_sign_out(
    weights: Path, redis_url: str, tmp_path: Path
) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with provider(url, logout_at=url, seconds=2) as at:
        settings = at.environment("staff", "approver") | {"INGEST_PORT": str(port), "REDIS_URL": redis_url}
        with served(Bank(tmp_path, weights, **settings)):
            async with launched() as browser:
                context = await browser.new_context(locale="ko-KR")
                context.set_default_timeout(WAIT)
                page = await context.new_page()
                trouble = Trouble(page)
                trouble.expected = ("asked http://localhost:", "401", "403")
                await page.goto(f"{url}/#/documents")
                await sign_in(page)
                before = at.renewed()
                await upload_and_look(page)
                assert at.renewed() > before
                await page.locator("#sign-out").click()
                await page.get_by_role("button", name="Sign out").click()
                await expect(page.locator("#sign-in-link")).to_be_focused()
                assert trouble.unexpected() == []


async def sign_in(page: Page) -> None:
    await expect(page.locator("#token")).to_be_hidden()
    await assert_accessible(page)
    await expect(page.locator("#sign-in-link")).to_be_focused()
    await page.keyboard.press("Enter")
    await page.locator("input[name=who]").fill("kim")
    await page.keyboard.press("Enter")
    await expect(page.locator("#documents-title")).to_be_focused()  # where the page was before
    await expect(page.locator("#who-name")).to_have_text("kim kim님")


async def upload_and_look(page: Page) -> None:
    await page.locator("[data-view=upload]").click()
    terms = FilePayload(name="terms.md", mimeType="text/markdown", buffer=samples.MARKDOWN.encode())
    await page.locator("#file-input").set_input_files(terms)
    await expect(page.locator("#files > li[data-state=done]")).to_have_count(1)
    await page.locator("[data-view=queue]").click()
    await expect(page.locator("#queue .cards > li")).to_have_count(1)
    await page.locator("[data-view=documents]").click()
    await expect(page.locator("#documents .cards > li")).to_have_count(1)
