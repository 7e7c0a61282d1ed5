"""The staff page in Chromium, against the documents API and its worker as a program of their own; no model server."""

import base64
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Literal

import anyio
import pytest
from playwright.async_api import Browser, Locator, Page, expect

from tests.e2e.browser import NEEDS_CHROMIUM, WAIT, Trouble, assert_accessible, launched
from tests.ingest import samples
from tests.ingest.bank import Bank

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.services,
    pytest.mark.browser,
    pytest.mark.timeout(300),
    NEEDS_CHROMIUM,
]

TERMS = samples.MARKDOWN + "\n문의: 900101-1234568\n"
WRONG = "# 지난 행사\n\n## 행사 기간\n\n행사는 2019년 12월 31일에 끝났습니다.\n"
PAPER = samples.pdf(sign=samples.UNDRAWABLE)
LOCKED = samples.pdf(password="1")
Screens = tuple[tuple[int, Literal["light", "dark"]], ...]
SCREENS: Screens = ((390, "dark"), (1280, "light"))
# Runs before the page's own scripts: the messages of each file's row, the violations of the policy, and the last reply.
WATCH = """
window.seen = { messages: [], violations: [], pending: 0, repliedAt: 0 };
const sendRequest = window.fetch;
window.fetch = (...request) => {
  window.seen.pending += 1;
  return sendRequest(...request).finally(() => {
    window.seen.pending -= 1;
    window.seen.repliedAt = performance.now();
  });
};
document.addEventListener("securitypolicyviolation", (event) => window.seen.violations.push(event.violatedDirective));
addEventListener("DOMContentLoaded", () => {
  new MutationObserver((records) => {
    for (const { target } of records) {
      if (target.matches?.(".file .said")) window.seen.messages.push(target.dataset.i18n);
    }
  }).observe(document.getElementById("files"), { childList: true, subtree: true });
});
"""
UNTIL_QUIET = """async () => {
  while (window.seen.pending > 0 || performance.now() < window.seen.repliedAt + 300) {
    await new Promise(requestAnimationFrame);
  }
}"""
DROP = """(zone, files) => {
  const dragged = new DataTransfer();
  for (const [name, data] of files) {
    const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
    dragged.items.add(new File([bytes], name));
  }
  for (const type of ["dragenter", "dragover", "drop"]) {
    zone.dispatchEvent(new DragEvent(type, { dataTransfer: dragged, bubbles: true, cancelable: true }));
  }
}"""
TOO_SMALL = """() => [...document.querySelectorAll("button, a[href], input, select, .button")]
  .filter((control) => control.checkVisibility() && !control.matches(".skip, .visually-hidden"))
  .map((control) => ({ what: control.outerHTML.slice(0, 90), touch: control.getBoundingClientRect() }))
  .filter(({ touch }) => touch.width < 44 || touch.height < 44).map(({ what }) => what)"""


@pytest.fixture
async def browser() -> AsyncGenerator[Browser]:
    async with launched() as browser:
        yield browser


@asynccontextmanager
async def opened(
    browser: Browser,
    bank: Bank,
    *,
    width: int = 1280,
    language: str = "ko-KR",
    dark: bool = False,
    provoked: tuple[str, ...] = (),
) -> AsyncGenerator[Page]:
    """Open the page; afterwards nothing but what was provoked may have been in the console."""
    phone = width < 500
    context = await browser.new_context(
        viewport={"width": width, "height": 800},
        locale=language,
        has_touch=phone,
        is_mobile=phone,
        color_scheme="dark" if dark else "light",
    )
    context.set_default_timeout(WAIT)
    await context.add_init_script(WATCH)
    page = await context.new_page()
    trouble = Trouble(page)
    trouble.expected = provoked
    await page.goto(bank.url)
    yield page
    assert trouble.unexpected() == []
    assert await page.evaluate("window.seen.violations") == []
    await context.close()


async def enter(page: Page, bank: Bank, sub: str, *roles: str, tenant: str = "hanbit") -> None:
    """Leave, if somebody else is in, and enter with a token, by keyboard."""
    if await page.locator("#sign-out").is_visible():
        await page.evaluate(UNTIL_QUIET)  # the next request of a view would get 401
        await page.locator("#sign-out").click()
    await expect(page.locator("#token")).to_be_focused()
    await page.keyboard.insert_text(bank.token(sub, *roles, tenant=tenant))
    await page.keyboard.press("Enter")
    await expect(page.locator("#who-name")).to_contain_text(sub)


async def visit(page: Page, place: str) -> Locator:
    """Go to a view; return its section, with the focus on its heading."""
    await page.evaluate("(place) => { location.hash = place; }", place)
    section = page.locator(f"#{place.split('/')[1]}")
    await expect(section).to_be_visible()
    await expect(section.locator("h2").first).to_be_focused()
    return section


async def drop(page: Page, files: dict[str, bytes]) -> None:
    named = [[name, base64.b64encode(data).decode()] for name, data in files.items()]
    await page.locator("#drop").evaluate(DROP, named)


async def approve_all(page: Page) -> None:
    """Approve every draft that waits, each after a look at it."""
    while True:
        queue = await visit(page, "#/queue")
        await expect(queue.locator(".note")).not_to_contain_text("불러오는")
        if not await queue.locator(".cards > li").count():
            return
        await queue.locator(".cards > li a").last.click()
        await read_to_the_end(page)
        approve = page.locator("#approve")
        await expect(approve).to_have_text("승인 (kim님이 올림)")
        await expect(approve).to_be_enabled()
        await approve.click()
        await expect(page.locator("#view-said")).to_contain_text("승인했습니다")


async def read_to_the_end(page: Page) -> None:
    """Scroll to every passage."""
    passages = page.locator("#review-passages .passage")
    await expect(passages.first).to_be_visible()  # those of the version before are hidden, then removed
    await expect(page.locator("#approve")).to_be_enabled()
    for passage in await passages.all():
        await passage.scroll_into_view_if_needed()
        await page.evaluate("new Promise(requestAnimationFrame)")  # the page looks once a frame


async def assert_accessible_everywhere(page: Page, screens: Screens = SCREENS) -> None:
    """Assert that the page fits and axe finds nothing, on a phone and a desk, dark and light."""
    for width, colours in screens:
        await page.set_viewport_size({"width": width, "height": 800})
        await page.emulate_media(color_scheme=colours)
        await assert_fits(page)
        await assert_accessible(page)


async def assert_fits(page: Page) -> None:
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert await page.evaluate(TOO_SMALL) == []


async def test_staff_upload_review_approve_and_roll_back_documents_by_keyboard(browser: Browser, bank: Bank) -> None:
    async with opened(browser, bank, provoked=("net::ERR_FAILED",)) as page:
        await enter(page, bank, "kim", "staff")
        await upload_four(page)
        await look_at_own_draft(page)
        await enter(page, bank, "lee", "approver")

        await look_at_the_queue(page)
        await reject_draft(page)
        await dismiss_failed_upload(page, bank)
        await approve_all(page)
        document = await change_dates(page)

        await enter(page, bank, "kim", "staff")
        await upload_second_version(page, document)
        await enter(page, bank, "lee", "approver")
        await compare(page, document)
        await approve_all(page)
        await roll_back(page, document)
        await ask_for_groups_and_days(page)
        await try_failed_job_again(page)
        await change_title(page, document)
        await end_and_delete(page, document)
        await look_everywhere(page, document)
    async with opened(browser, bank, width=390, language="en-US", dark=True) as phone:
        await enter(phone, bank, "park", "approver")
        await look_everywhere(phone, document, SCREENS[:1])
        assert not re.search("[가-힣]", await phone.locator("nav#views").inner_text())


async def upload_four(page: Page) -> None:
    await page.locator("#readers").fill("vip")
    files = {"terms.md": TERMS.encode(), "paper.pdf": PAPER, "wrong.md": WRONG.encode()}
    await drop(page, files | {"locked.pdf": LOCKED})
    rows = page.locator("#files > li")
    await expect(rows).to_have_count(4)
    await expect(page.locator("#files > li[data-state=done]")).to_have_count(3)
    broken = page.locator("#files > li", has_text="locked.pdf")
    await expect(broken.locator(".problem")).to_have_text("암호가 걸려 있습니다. 암호를 풀어 다시 올리세요.")
    await expect(page.locator("#announcements")).to_contain_text("terms.md 완료")
    await expect(page.locator("#announcements")).to_contain_text("locked.pdf 실패: 암호가")
    messages = await page.evaluate("window.seen.messages")
    assert {"file_waiting", "file_sending", "file_accepted"} <= set(messages)
    assert messages.count("file_done") == 3
    await assert_accessible_everywhere(page)


async def look_at_own_draft(page: Page) -> None:
    await page.locator("#files > li", has_text="paper.pdf").locator("a").click()
    review = page.locator("#review")
    await expect(review.locator("#approve")).to_have_text("내가 올린 문서는 승인할 수 없습니다")
    await expect(review.locator("#approve")).to_be_disabled()
    picture = review.get_by_role("img", name="원본 1쪽 그림")
    await expect(picture).to_be_visible()
    assert await picture.evaluate("(img) => img.decode().then(() => img.naturalHeight)") == 1600
    incomplete = review.get_by_text("이 파일의 일부 글자는 여기서 그릴 수 없습니다. 단락에는 빠진 글자가 없습니다.")
    await expect(incomplete).to_have_count(0)
    await expect(review.locator("#review-passages")).to_contain_text("예금자보호법")
    await review.get_by_role("heading", name="2쪽", exact=True).scroll_into_view_if_needed()
    await expect(review.get_by_role("img", name="원본 2쪽 그림")).to_be_visible()
    await expect(incomplete).to_be_visible()
    await expect(review.locator(".page")).to_have_count(2)
    async with page.expect_download() as download:
        await review.get_by_role("button", name="원본 내려받기").click()
    saved = await download.value
    assert saved.suggested_filename == "paper.pdf"
    assert await anyio.Path(await saved.path()).read_bytes() == PAPER


async def look_at_the_queue(page: Page) -> None:
    queue = await visit(page, "#/queue")
    await expect(queue.locator(".cards > li")).to_have_count(3)
    terms = queue.locator(".cards > li", has_text="terms.md")
    await expect(terms.locator(".findings")).to_contain_text("개인정보로 보임: 주민등록번호")
    await expect(queue.locator(".cards > li", has_text="paper.pdf")).to_contain_text("점검에서 발견된 것이 없습니다")
    await terms.locator("a").click()
    await expect(page.locator("#review-passages")).to_contain_text("목돈을 한 번에 맡기는 예금입니다.")
    await page.locator("#review-findings button").first.click()
    await expect(page.locator("#review-passages li:focus")).to_contain_text("900101-1234568")
    await assert_accessible(page)


async def reject_draft(page: Page) -> None:
    queue = await visit(page, "#/queue")
    await queue.locator(".cards > li", has_text="지난 행사").locator("a").click()
    reject = page.locator("#decision").get_by_role("button", name="반려")
    await reject.click()
    await expect(page.locator("#confirm-text")).to_have_text(
        "‘지난 행사’ 버전 1: 반려할까요? 초안의 단락이 지워집니다."
    )
    await assert_accessible_everywhere(page)
    await page.keyboard.press("Escape")  # no
    await expect(page.locator("#approve")).to_be_visible()
    await reject.click()
    await page.locator("#confirm-reason").fill("끝난 행사")
    await page.keyboard.press("Enter")
    await expect(page.locator("#view-said")).to_have_text("‘지난 행사’ 버전 1: 반려했습니다.")
    await expect(page.locator("#review h2")).to_be_focused()  # of the next draft
    await expect(page.locator("#review-title")).not_to_contain_text("지난 행사")
    await expect(page.locator("nav [data-count=drafts]")).to_have_text("2")
    queue = await visit(page, "#/queue")
    await expect(queue.locator(".cards > li")).to_have_count(2)


async def change_dates(page: Page) -> str:
    documents = await visit(page, "#/documents")
    await documents.get_by_role("link", name="정기예금 안내").click()
    card = page.locator("#versions > li").first
    await expect(card.locator(".badge")).to_have_attribute("data-state", re.compile("approved|active"))
    await card.get_by_role("button", name="날짜 바꾸기").click()
    await card.get_by_label("종료일 (마지막 날)").fill("2099-12-31")
    await card.get_by_role("button", name="날짜 저장").click()
    await expect(card).to_contain_text("날짜를 바꾸었습니다.")
    await expect(card.locator("dl")).to_contain_text("2099. 12. 31.")
    place: str = await page.evaluate("location.hash")
    return place


async def dismiss_failed_upload(page: Page, bank: Bank) -> None:
    await enter(page, bank, "kim", "staff")
    await drop(page, {"locked-too.pdf": LOCKED + b" "})
    await page.get_by_role("button", name="locked-too.pdf 목록에서 지우기").press("Enter")
    await expect(page.locator("#files > li")).to_have_count(0)
    await expect(page.locator("#upload-title")).to_be_focused()
    jobs = await visit(page, "#/jobs")
    await expect(jobs.locator(".cards > li", has_text="locked.pdf")).to_contain_text("암호가 있어야 열리는 PDF입니다")
    await expect(jobs.locator(".cards > li", has_text="locked-too.pdf")).to_have_count(0)
    await enter(page, bank, "lee", "approver")
    await expect(page.locator("#queue h2")).to_be_focused()


async def change_title(page: Page, document: str) -> None:
    await visit(page, document)
    third = page.locator("#versions > li[data-version='3']")
    await third.get_by_role("button", name="제목 바꾸기").press("Enter")
    await third.get_by_label("제목", exact=False).fill("정기예금 새 안내")
    await page.keyboard.press("Enter")
    await expect(page.locator("#document-files > li")).to_have_attribute("data-state", "done")
    fourth = page.locator("#versions > li[data-version='4']")
    await expect(fourth.locator(".badge")).to_have_attribute("data-state", "indexed")
    await expect(page.locator("#document-title")).to_have_text("정기예금 새 안내")
    await visit(page, "#/upload")


async def read_the_history(page: Page) -> None:
    for version, parts in (
        (2, ("올림", "kim", "다른 버전으로 되돌려 철회", "lee", "잘못된 금리")),
        (3, ("되돌려 다시 사용", "잘못된 금리", "승인", "종료", "금리가 바뀜")),
        (4, ("제목 바꿈", "lee", "정기예금 새 안내")),
    ):
        card = page.locator(f"#versions > li[data-version='{version}']")
        await card.locator("summary").press("Enter")
        for part in parts:
            await expect(card.locator(".history")).to_contain_text(part)
    await assert_accessible_everywhere(page)


async def upload_second_version(page: Page, document: str) -> None:
    await visit(page, "#/documents")
    await page.route("**/versions", lambda route: route.abort(), times=1)
    await visit(page, "#/document/another")
    await expect(page.locator("#view-problem")).to_contain_text("연결되지 않습니다")
    await expect(page.locator("#new-version")).to_be_hidden()  # it would take its readers from the document before
    await visit(page, document)
    data = TERMS.replace("2.35", "2.75").encode()
    await page.locator("#new-file").set_input_files({"name": "terms-2.md", "mimeType": "", "buffer": data})
    await page.locator("#new-version").get_by_role("button", name="올리기").click()
    await expect(page.locator("#document-files > li")).to_have_attribute("data-state", "done")
    await expect(page.locator("#versions > li")).to_have_count(2)
    await expect(page.locator("#versions > li").first.locator("dl")).to_contain_text("vip")  # as the version before it


async def compare(page: Page, document: str) -> None:
    review = await visit(page, document.replace("#/document/", "#/review/") + "/2")
    await expect(review.locator("#review-changes")).to_contain_text("승인된 버전 1에서 달라진 단락 1개")
    await expect(review.locator(".passage td del")).to_have_text("2.35%")
    await expect(review.locator(".passage td ins")).to_have_text("2.75%")
    await review.locator("#review-changes button").click()
    await expect(review.locator("li.passage:focus ins")).to_have_text("2.75%")


async def roll_back(page: Page, document: str) -> None:
    first = page.locator("#versions > li[data-version='1']")
    back = first.get_by_role("button", name="이 버전으로 되돌리기")
    while not await back.count():  # by the server's clock, which nobody announces
        await visit(page, "#/documents")
        await visit(page, document)
        await expect(first).to_be_visible()
    await back.click()
    await page.locator("#confirm-reason").fill("잘못된 금리")
    await page.keyboard.press("Escape")  # no
    await expect(page.locator("#versions > li")).to_have_count(2)
    await back.click()
    await page.locator("#confirm-reason").fill("잘못된 금리")
    await page.keyboard.press("Enter")
    await expect(page.locator("#versions > li")).to_have_count(3)
    await expect(page.locator("#document-files > li")).to_have_attribute("data-state", "back")
    await expect(page.locator("#document-files .said")).to_have_text("되돌렸습니다. 이 버전이 답변에 쓰입니다.")
    third = page.locator("#versions > li[data-version='3'] .badge")
    await expect(third).to_have_attribute("data-state", re.compile("approved|active"))
    await expect(page.locator("#versions > li[data-version='2']")).to_contain_text("다른 버전으로 되돌림")


async def ask_for_groups_and_days(page: Page) -> None:
    test = await visit(page, "#/test")
    await test.get_by_label("질문", exact=True).fill("정기예금 12개월 금리")
    search = test.get_by_role("button", name="찾기")
    await search.click()
    await expect(test.locator("#test-answer")).to_contain_text("아무것도 찾지 못했을")
    await test.get_by_label("그 밖의 그룹 (쉼표로 구분)").fill("vip")
    await search.click()  # now
    await expect(test.locator(".hits > li").first).to_contain_text("정기예금")
    await test.get_by_label("날짜 (은행 시각)").fill("2099-12-31")
    await search.click()
    await expect(test.locator(".hits > li").first).to_contain_text("정기예금")
    await expect(test.locator("#test-answer .said")).to_contain_text("customers, vip")
    await test.get_by_label("날짜 (은행 시각)").fill("2020-01-01")
    await search.click()
    await expect(test.locator(".hits > li")).to_have_count(0)


async def try_failed_job_again(page: Page) -> None:
    jobs = await visit(page, "#/jobs")
    row = jobs.locator(".cards > li", has_text="locked.pdf")
    await expect(row).to_contain_text("암호가 걸려 있습니다")
    await row.get_by_role("button", name="다시 시도").click()
    await expect(row.locator(".file")).to_have_attribute("data-state", "failed")
    await expect(row).to_contain_text("암호가 걸려 있습니다")


async def end_and_delete(page: Page, document: str) -> None:
    await visit(page, document)
    third = page.locator("#versions > li[data-version='3']")
    await third.get_by_role("button", name="지금 종료").click()
    await page.locator("#confirm-reason").fill("금리가 바뀜")
    await page.locator("#confirm-yes").click()
    await expect(third.locator(".badge")).to_have_attribute("data-state", "expired")
    await expect(third.locator("h3")).to_be_focused()
    await read_the_history(page)
    documents = await visit(page, "#/documents")
    await documents.get_by_role("link", name="정기예금 상품설명서").click()
    await expect(page.locator("#document-title")).to_have_text("정기예금 상품설명서")
    await expect(page.locator("#versions > li")).to_have_count(1)  # not those of the document before
    await page.get_by_role("button", name="문서 삭제").focus()
    for _ in range(2):  # held down
        await page.keyboard.down("Enter")
    await page.keyboard.up("Enter")
    await expect(page.locator("#confirm-text")).to_contain_text("모든 버전을 철회할까요?")
    await page.locator("#confirm-yes").click()
    await expect(page.locator("#versions .badge")).to_have_attribute("data-state", "withdrawn")


async def look_everywhere(page: Page, document: str, screens: Screens = SCREENS) -> None:
    review = document.replace("#/document/", "#/review/") + "/1"
    for place in ("#/upload", "#/queue", "#/documents", document, review, "#/jobs", "#/test"):
        section = await visit(page, place)
        await expect(section.get_by_text(re.compile("Loading…|불러오는 중…"))).to_have_count(0)
        await assert_accessible_everywhere(page, screens)
    await visit(page, "#/upload")
    await page.keyboard.press("Tab")  # from the view's heading on
    assert await page.evaluate("document.activeElement.id") == "readers"
