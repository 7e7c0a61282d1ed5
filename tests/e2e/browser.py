"""The customers' page in Chromium: opening it, asking, and its text, focus, sizes, accessibility and console errors."""

import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import Browser, ConsoleMessage, Locator, Page, Request, async_playwright, expect

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
AXE = Path(__file__).parents[2] / ".venv/npm/node_modules/axe-core/axe.min.js"
CHROMIUM = shutil.which("chromium")
NEEDS_CHROMIUM = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
QUESTION = "샘물 정기예금의 기본 금리와 가입 기간을 알려 주세요."
SENTENCES = (
    "샘물 정기예금의 기본 금리는 연 3.1%이며 가입 기간은 12개월입니다.",
    "최소 가입 금액은 100만원입니다.",
    "만기 전에 해지하면 중도해지 금리 연 0.5%를 적용합니다.",
    "가입 후 1개월이 지나지 않으면 이자를 지급하지 않습니다.",
)
ANSWER = " ".join(SENTENCES)
# The tokens of the scripted model are bytes: at this pace a sentence takes about half a second.
SECONDS_A_TOKEN = 0.005
SLOWLY = 0.02  # so that a busy machine still finds the answer unfinished
HELD = 1.0  # seconds a token, within the model's deadline: an answer that is told to go on so stays unfinished
WAIT = 20_000

# Runs before the page's own scripts: what grows, what a screen reader is told, and what the policy refused.
WATCH = """
window.seen = { lengths: [], waited: [], spoken: [], violations: [] };
document.addEventListener("securitypolicyviolation", (event) => window.seen.violations.push(event.violatedDirective));
addEventListener("DOMContentLoaded", () => {
  const messages = document.getElementById("messages");
  if (!messages) return;  // a page of the identity provider
  new MutationObserver(() => {
    const bodies = document.querySelectorAll(".answer .body");
    const length = bodies.length ? bodies[bodies.length - 1].textContent.length : 0;
    if (length && length !== window.seen.lengths.at(-1)) window.seen.lengths.push(length);
  }).observe(messages, { childList: true, subtree: true, characterData: true });
  new MutationObserver((records) => {
    for (const { target, oldValue } of records) if (target.closest(".status")) window.seen.waited.push(oldValue);
  }).observe(messages, {
    subtree: true, attributeFilter: ["data-i18n"], attributeOldValue: true,
  });
  new MutationObserver((records) => {
    for (const record of records) for (const node of record.addedNodes) window.seen.spoken.push(node.textContent);
  }).observe(document.getElementById("announcements"), { childList: true });
});
"""


class Trouble:
    """Console errors, uncaught exceptions and foreign requests of a page; a test names those that it provokes."""

    def __init__(self, page: Page) -> None:
        self.found: list[str] = []
        self.expected: tuple[str, ...] = ()
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.found.append(f"uncaught {error}"))
        page.on("request", self._request)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.found.append(message.text)

    def _request(self, request: Request) -> None:
        if not request.url.startswith(("http://127.0.0.1:", "blob:http://127.0.0.1:", "data:")):
            self.found.append(f"asked {request.url}")

    def unexpected(self) -> list[str]:
        return [text for text in self.found if not any(part in text for part in self.expected)]


@asynccontextmanager
async def launched(*, without: tuple[str, ...] = ()) -> AsyncGenerator[Browser]:
    """Run Chromium while the block runs, `without` some of Playwright's own arguments."""
    expect.set_options(timeout=WAIT)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM, args=ARGUMENTS, ignore_default_args=list(without)
        )
        yield browser
        await browser.close()


@asynccontextmanager
async def visiting(
    browser: Browser, url: str, *, width: int = 1280, height: int = 800, language: str = "ko-KR", dark: bool = False
) -> AsyncGenerator[tuple[Page, Trouble]]:
    """Visit the page as a new visitor; afterwards nothing unexpected may have been in the console."""
    phone = width < 500
    context = await browser.new_context(
        viewport={"width": width, "height": height},
        locale=language,
        has_touch=phone,
        is_mobile=phone,
        color_scheme="dark" if dark else "light",
        reduced_motion="reduce",
    )
    context.set_default_timeout(WAIT)
    await context.add_init_script(WATCH)
    page = await context.new_page()
    trouble = Trouble(page)
    await page.goto(url)
    yield page, trouble
    assert trouble.unexpected() == []
    if page.url.startswith(url):  # and not at the identity provider
        assert await page.evaluate("window.seen.violations") == []
    await context.close()


@asynccontextmanager
async def opened(
    browser: Browser, url: str, *, width: int = 1280, height: int = 800, language: str = "ko-KR", dark: bool = False
) -> AsyncGenerator[tuple[Page, Trouble]]:
    """Visit the page, and wait until it shows the empty history of a new customer."""
    async with visiting(browser, url, width=width, height=height, language=language, dark=dark) as (page, trouble):
        await expect(page.locator("#history-note")).to_have_attribute("data-i18n", "history_empty")
        yield page, trouble


async def customer(page: Page) -> str:
    """Return the name of the demo customer that this browser is signed in as."""
    name: str = await page.evaluate("localStorage.getItem('bank.customer')")
    return name


async def ask(page: Page, question: str = QUESTION) -> Locator:
    """Type a question, send it, and return its answer, which has only begun."""
    await page.locator("#question").fill(question)
    await page.keyboard.press("Enter")
    answer = page.locator(".answer").last
    await expect(answer).to_be_visible()
    return answer


async def finished(answer: Locator) -> None:
    await expect(answer).to_have_attribute("aria-busy", "false")


async def words(answer: Locator) -> str:
    """Return the answer's text without its citation markers."""
    text: str = await answer.locator(".body").evaluate(
        "(body) => { const copy = body.cloneNode(true);"
        " copy.querySelectorAll('.cite').forEach((marker) => marker.remove()); return copy.textContent; }"
    )
    return text


async def focus_backwards(page: Page, selector: str) -> str:
    """Press Shift+Tab until something that matches is focused; return its citation key."""
    for _ in range(30):
        await page.keyboard.press("Shift+Tab")
        if await page.evaluate("(selector) => document.activeElement.matches(selector)", selector):
            key: str = await page.evaluate("document.activeElement.dataset.cite")
            return key
    pytest.fail(f"{selector} cannot be reached by keyboard")


async def assert_fits(page: Page) -> None:
    """Assert that nothing is wider than the window and every control is at least 44 px high and wide."""
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert await page.evaluate("document.getElementById('log').scrollWidth <= innerWidth")
    too_small = await page.evaluate(
        """() => [...document.querySelectorAll("button, a[href], summary, textarea, input")]
          .filter((control) => control.checkVisibility() && !control.matches(".skip"))
          .map((control) => ({ what: control.outerHTML.slice(0, 80), touch: touched(control) }))
          .filter(({ touch }) => touch.width < 44 || touch.height < 44);
        function touched(control) {
          const around = getComputedStyle(control, "::after");
          const { width, height } = control.matches(".cite, .tel") ? around : control.getBoundingClientRect();
          return { width: parseFloat(width), height: parseFloat(height) };
        }"""
    )
    assert too_small == []


async def assert_accessible(page: Page) -> None:
    """Assert that axe finds nothing."""
    await page.evaluate(AXE.read_text("utf-8"))
    found = "async () => (await axe.run()).violations.map(({ id, nodes }) => [id, nodes.map(({ html }) => html)])"
    violations = await page.evaluate(found)
    assert violations == [], violations
