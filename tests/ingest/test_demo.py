"""Where `make run` lets anybody in on loopback, staff enter the page as one of two people, without a token."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest
from httpx2 import AsyncClient
from playwright.async_api import expect

from edge import bind, listening
from evals.sample_bank import sample_banks
from ingest.app import create_app
from ingest.services import Services
from ingest.worker import Worker
from knowledge.identity import Principal
from tests.e2e.browser import NEEDS_CHROMIUM, WAIT, Trouble, assert_readable, launched
from tests.ingest import samples
from tests.ingest.staff import Token, with_tokens

pytestmark = [pytest.mark.anyio, pytest.mark.services]


@dataclass(frozen=True)
class Bank:
    """The documents API with its worker, on a socket; `demo` is the same with the demo sign-in."""

    url: str
    demo: str


def signing(token: Token, who: Principal) -> tuple[str, int]:
    return token(who.sub, *who.roles, tenant=who.tenant), 0


@pytest.fixture
async def bank(services: Services, tmp_path: Path) -> AsyncGenerator[Bank]:
    services, token = with_tokens(services, tmp_path)
    plain, demo = bind("127.0.0.1", 0), bind("127.0.0.1", 0)
    with plain, demo:
        app = create_app(services, sample_banks(), demo=lambda who: signing(token, who))
        async with (
            listening(create_app(services, sample_banks()), plain),
            listening(app, demo),
            anyio.create_task_group() as group,
        ):
            group.start_soon(Worker(services).run)
            yield Bank(*(f"http://127.0.0.1:{socket.getsockname()[1]}" for socket in (plain, demo)))
            group.cancel_scope.cancel()


async def test_there_are_two_people_and_nobody_else(bank: Bank) -> None:
    async with AsyncClient(base_url=bank.demo) as http:
        seen = {}
        for role in ("staff", "approver"):
            token = (await http.post("/demo/login", json={"role": role})).json()["token"]
            me = (await http.get("/v1/me", headers={"authorization": f"Bearer {token}"})).json()
            seen[me["sub"]] = (me["tenant"], me["roles"])
        assert seen == {"demo uploader": ("demo", ["staff"]), "demo approver": ("demo", ["approver"])}
        for role in ("admin", "platform", "customer", ""):
            assert (await http.post("/demo/login", json={"role": role})).status_code == 422


async def test_without_it_there_is_no_such_address_and_the_page_asks_for_a_token(bank: Bank) -> None:
    async with AsyncClient(base_url=bank.url) as http:
        assert (await http.post("/demo/login", json={"role": "staff"})).status_code == 404
        assert 'data-demo=""' in (await http.get("/")).text


@NEEDS_CHROMIUM
@pytest.mark.browser
async def test_one_uploads_and_the_other_approves_without_a_token(bank: Bank) -> None:
    async with launched() as browser:
        page = await browser.new_page(locale="en-US", viewport={"width": 390, "height": 800})
        page.set_default_timeout(WAIT)
        trouble = Trouble(page)
        await page.goto(bank.url)
        await expect(page.locator("#token")).to_be_focused()
        await expect(page.locator("#demo")).to_be_hidden()
        await page.goto(bank.demo)
        await expect(page.get_by_role("button", name="Sign in as uploader")).to_be_focused()
        await assert_readable(page)
        await page.keyboard.press("Enter")
        await expect(page.locator("#who-name")).to_contain_text("demo uploader")
        await page.locator("#file-input").set_input_files(
            {"name": "terms.md", "mimeType": "", "buffer": samples.MARKDOWN.encode()}
        )
        await expect(page.locator("#files > li[data-state=done]")).to_have_count(1)
        await page.locator("#sign-out").click()
        await page.get_by_role("button", name="Sign in as approver").click()
        await expect(page.locator("#who-name")).to_contain_text("demo approver")
        await page.locator("#views").get_by_role("link", name="To approve").click()
        await page.locator("#queue .cards > li a").click()
        await expect(page.locator("#approve")).to_contain_text("Approve (uploaded by demo uploader)")
        await page.locator("#approve").click()
        await expect(page.locator("#view-said")).to_contain_text("Approved")
        assert trouble.unexpected() == []
