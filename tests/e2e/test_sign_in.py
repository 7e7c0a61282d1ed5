"""The customers' page in Chromium, signed in at a certified provider: from the sign-in to every way a session ends."""

from collections.abc import AsyncGenerator, Iterator

import pytest
from playwright.async_api import Browser, Page, expect

from tests.conftest import free_port
from tests.e2e.browser import (
    ANSWER,
    NEEDS_CHROMIUM,
    SECONDS_A_TOKEN,
    ask,
    assert_accessible,
    finished,
    launched,
    visiting,
    words,
)
from tests.e2e.conftest import Product, scripted_model, served
from tests.oidc_provider import NEEDS_PROVIDER, Provider, provider

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.e2e,
    pytest.mark.browser,
    pytest.mark.timeout(180),
    NEEDS_CHROMIUM,
    NEEDS_PROVIDER,
]


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def at(port: int) -> Iterator[Provider]:
    origin = f"http://127.0.0.1:{port}"
    with provider(origin, logout_at=origin) as running:
        yield running


@pytest.fixture(scope="module")
def signing_in(tmp_path_factory: pytest.TempPathFactory, redis_url: str, at: Provider, port: int) -> Iterator[Product]:
    """The product, whose customers sign in at the provider."""
    folder = tmp_path_factory.mktemp("signing-in")
    settings = at.environment("customer") | {"PORT": str(port)}
    with scripted_model(folder) as endpoints, served(folder, redis_url, endpoints, **settings) as running:
        yield running


@pytest.fixture
async def scripted(signing_in: Product, at: Provider) -> Product:
    at.let_tokens_last(300)
    await signing_in.tell(answer=ANSWER, probe=0.99, token_seconds=SECONDS_A_TOKEN)
    return signing_in


@pytest.fixture(scope="module")
async def browser() -> AsyncGenerator[Browser]:
    async with launched() as browser:
        yield browser


AT_PROVIDER = "asked http://localhost:"
"""The provider's own pages are requests to another site."""


async def sign_in(page: Page, name: str = "lee") -> None:
    """Sign in by keyboard alone, and come back to the page."""
    await expect(page.locator("#sign-in-link")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.locator("input[name=who]")).to_be_focused()
    await page.keyboard.insert_text(name)
    await page.keyboard.press("Enter")
    await expect(page.locator("#who-name")).to_have_attribute("data-i18n", "signed_in")


async def test_a_session_outlives_its_token_and_ends_at_the_provider_too(
    browser: Browser, scripted: Product, at: Provider
) -> None:
    at.let_tokens_last(2)
    async with visiting(browser, scripted.url) as (page, trouble):
        trouble.expected = (AT_PROVIDER,)
        await expect(page.locator("#sign-in-link")).to_be_visible()
        await expect(page.locator("#token")).to_be_hidden()
        await assert_accessible(page)
        await sign_in(page)
        await expect(page.locator("#who-name")).to_have_text("lee lee님")
        assert await page.evaluate("document.cookie") == "", "no script reads the session"
        before = at.renewed()
        answer = await ask(page)
        await finished(answer)  # it takes longer than the token lasts
        assert await words(answer) == ANSWER
        await page.reload()
        assert await words(page.locator(".answer")) == ANSWER
        assert at.renewed() > before
        await page.locator("#sign-out").click()
        await page.get_by_role("button", name="Sign out").click()
        await expect(page.locator("#sign-in-link")).to_be_focused()
        await page.keyboard.press("Enter")
        await expect(page.locator("input[name=who]")).to_be_visible()  # the provider asks again who it is


async def test_the_way_back_after_signing_out_shows_nothing_of_the_conversation(scripted: Product) -> None:
    async with (
        launched(without=("--disable-back-forward-cache",)) as browser,
        visiting(browser, scripted.url) as (page, trouble),
    ):
        trouble.expected = (AT_PROVIDER, "401")
        await sign_in(page)
        await finished(await ask(page))
        await page.locator("#question").fill("다음 질문")
        await page.reload()
        await expect(page.locator("#question")).to_have_value("다음 질문")
        another = {"name": "lee lee", "person": "0123456789abcdef"}
        await page.route("**/oidc/session", lambda route: route.fulfill(json=another), times=1)
        await page.reload()
        await expect(page.locator("#ask")).to_be_visible()
        await expect(page.locator("#question")).to_have_value("")
        await page.locator("#question").fill("다음 질문")
        await page.locator("#sign-out").click()
        await expect(page.get_by_role("button", name="Sign out")).to_be_visible()
        await page.evaluate("history.back()")
        await expect(page.locator("#sign-in-link")).to_be_visible()
        await expect(page.locator(".asked")).to_have_count(0)
        assert "다음 질문" not in await page.evaluate("JSON.stringify(sessionStorage)")
