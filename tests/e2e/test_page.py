"""The customers' page in Chromium, against the served product: what a customer sees, hears and can reach."""

import asyncio
import re
from collections.abc import AsyncGenerator

import pytest
from playwright.async_api import Browser, Page, Route, expect

from tests.e2e.browser import (
    ANSWER,
    AXE,
    HELD,
    NEEDS_CHROMIUM,
    QUESTION,
    SECONDS_A_TOKEN,
    SENTENCES,
    SLOWLY,
    WAIT,
    ask,
    assert_accessible,
    assert_fits,
    customer,
    finished,
    focus_backwards,
    launched,
    opened,
    words,
)
from tests.e2e.conftest import Product, until
from tests.e2e.relay import wired

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.e2e,
    pytest.mark.browser,
    pytest.mark.timeout(300),  # the first test also waits for the whole product to start
    NEEDS_CHROMIUM,
]


@pytest.fixture(scope="module")
async def browser() -> AsyncGenerator[Browser]:
    async with launched() as browser:
        yield browser


@pytest.fixture
async def scripted(product: Product) -> AsyncGenerator[Product]:
    """The product, whose model says four sentences that the documents hold, slowly enough to be watched."""
    await product.tell(answer=ANSWER, probe=0.99, token_seconds=SECONDS_A_TOKEN)
    yield product
    await product.restore()


@pytest.fixture
async def desk(browser: Browser, scripted: Product) -> AsyncGenerator[Page]:
    async with opened(browser, scripted.url) as (page, _):
        yield page


async def test_an_answer_grows_before_the_eyes_and_its_citation_opens_the_passage(desk: Page) -> None:
    answer = await ask(desk)
    await finished(answer)

    lengths = await desk.evaluate("window.seen.lengths")
    assert len(lengths) >= 3
    assert lengths == sorted(lengths)
    waited = [status for status in await desk.evaluate("window.seen.waited") if status]
    assert list(dict.fromkeys(waited)) == ["searching", "reading", "checking"]
    assert await words(answer) == ANSWER
    await expect(answer.locator(".stamp")).to_have_text("이 문서들을 바탕으로 AI가 쓴 답변입니다.")

    marker = answer.locator(".cite").first
    before = await marker.evaluate("(marker) => marker.parentElement.textContent")
    assert before.startswith("12개월입니다.")
    await marker.click()
    panel = desk.locator("#passage")
    await expect(panel).to_be_visible()
    await expect(panel.locator("h2")).to_contain_text("샘물 정기예금")
    await expect(panel.locator("dl")).to_contain_text("금리와 기간")
    public = panel.get_by_role("link", name="은행 홈페이지에서 보기 (새 창)")
    await expect(public).to_have_attribute("href", "https://www.saemmul.example/deposits")
    await expect(panel.locator(".passage-text")).to_contain_text(SENTENCES[0])
    await expect(panel.locator("mark").first).to_be_visible()
    assert "3.1%" in "".join(await panel.locator("mark").all_text_contents())
    await expect(answer.locator(".document").first).to_contain_text("샘물 정기예금")


async def test_an_answer_is_copied_with_its_sources_and_printed(desk: Page) -> None:
    await desk.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await desk.evaluate("window.print = () => (window.printed = true)")
    answer = await ask(desk)
    await finished(answer)
    await answer.get_by_role("button", name="답변 복사").click()
    await expect(desk.locator("#announcements")).to_contain_text("답변을 복사했습니다")
    sources = "[1] 샘물 정기예금 안내 · 금리와 기간\n[2] 샘물 정기예금 안내"
    assert await desk.evaluate("navigator.clipboard.readText()") == f"{ANSWER}\n\n근거 문서\n{sources}"
    await answer.get_by_role("button", name="인쇄").click()
    assert await desk.evaluate("window.printed") is True


async def test_the_page_opens_with_an_ai_notice_and_a_telephone_number(desk: Page) -> None:
    welcome = desk.locator("#welcome")
    await expect(welcome).to_contain_text("사람이 아닌 AI가 답합니다")
    await expect(welcome).to_contain_text("1599-0000")
    await expect(desk.locator(".call, #welcome .tel, #ask .tel")).to_have_count(3)
    await expect(desk.locator("#example-list button")).to_have_count(3)
    assert await desk.title() == "AI 상담 · 한빛은행"
    assert await desk.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--brand')") == "#14488c"


async def test_stop_ends_the_answer_and_the_models_work(desk: Page, scripted: Product) -> None:
    await scripted.tell(token_seconds=SLOWLY)
    answer = await ask(desk)
    await expect(answer.locator(".body")).to_contain_text(SENTENCES[0])
    await desk.locator("#stop").click()
    await finished(answer)
    await expect(answer.locator(".ending[data-reason=cancelled]")).to_be_visible()
    assert not (await words(answer)).endswith(SENTENCES[-1])
    await until(scripted.idle)
    await expect(desk.locator("#send")).to_be_visible()
    await scripted.tell(token_seconds=0)
    await finished(await ask(desk))  # and the conversation goes on


async def test_a_conversation_is_listed_reopened_with_citations_and_deleted(desk: Page) -> None:
    await finished(await ask(desk))
    row = desk.locator("#history-list li")
    await expect(row).to_have_count(1)
    await expect(row).to_contain_text("샘물 정기예금")

    await desk.locator("#new-chat").click()
    await expect(desk.locator("#messages")).to_be_empty()
    await row.locator("[data-conversation]").click()
    await expect(desk.locator(".asked")).to_contain_text(QUESTION)
    answer = desk.locator(".answer")
    assert await words(answer) == ANSWER
    await answer.locator(".cite").first.click()
    await expect(desk.locator("#passage mark").first).to_be_visible()

    await desk.reload()
    await expect(desk.locator(".answer .cite").first).to_be_visible()

    await row.locator(".bin").click()
    await desk.keyboard.press("Escape")  # no
    await expect(row).to_have_count(1)
    await row.locator(".bin").click()
    await desk.locator("#confirm-yes").click()
    await expect(row).to_have_count(0)
    await expect(desk.locator("#messages")).to_be_empty()


async def test_a_regenerated_answer_and_the_first_are_reached_by_keyboard(desk: Page, scripted: Product) -> None:
    await finished(await ask(desk))
    await scripted.tell(answer=SENTENCES[0])
    await desk.get_by_role("button", name="다시 답변받기").focus()
    await desk.keyboard.press("Enter")
    answer, place = desk.locator(".answer"), desk.locator(".answer .place")
    await expect(place).to_have_text("2/2")
    assert await words(answer) == SENTENCES[0]
    assert await desk.evaluate("document.activeElement.matches('.answer')")

    await desk.get_by_role("button", name="이전 것 보기").focus()
    await desk.keyboard.press("Enter")
    await expect(place).to_have_text("1/2")
    assert await words(answer) == ANSWER
    await expect(desk.get_by_role("button", name="다음 것 보기")).to_be_focused()

    await scripted.tell(answer=SENTENCES[1])
    await finished(await ask(desk, "그럼 최소 가입 금액은요?"))  # behind the first answer, which is the one shown
    await expect(desk.locator(".answer")).to_have_count(2)
    await desk.reload()
    await expect(desk.locator(".answer")).to_have_count(2)
    await expect(place).to_have_text("1/2")
    await desk.get_by_role("button", name="다음 것 보기").click()
    await expect(desk.locator(".answer")).to_have_count(1)
    assert await words(answer) == SENTENCES[0]


async def test_a_rating_and_its_reasons_are_given_by_keyboard(desk: Page) -> None:
    await finished(await ask(desk))
    await expect(desk.locator(".reasons")).to_be_hidden()
    await desk.get_by_role("button", name="도움이 안 됐어요").focus()
    await desk.keyboard.press("Enter")
    for _ in range(5):  # past "again", "copy" and "print" to the second reason
        await desk.keyboard.press("Tab")
    await expect(desk.get_by_role("button", name="내용이 부족해요")).to_be_focused()
    await desk.keyboard.press("Space")
    await expect(desk.locator("#announcements")).to_contain_text("의견을 보내 주셔서 고맙습니다")

    await desk.locator("[data-language=en]").click()
    await desk.reload()
    down, reason = (desk.get_by_role("button", name=name) for name in ("This did not help", "It leaves things out"))
    await expect(down).to_have_attribute("aria-pressed", "true")
    await expect(reason).to_have_attribute("aria-pressed", "true")
    await desk.get_by_role("button", name="This helped").click()
    await expect(reason).to_be_hidden()
    await expect(down).to_have_attribute("aria-pressed", "false")


async def test_the_language_is_switched_everywhere_and_remembered(desk: Page) -> None:
    await finished(await ask(desk))
    await desk.locator("[data-language=en]").click()
    await expect(desk.locator("html")).to_have_attribute("lang", "en")
    await expect(desk.locator("#welcome")).to_contain_text("An AI answers here, not a person.")
    await expect(desk.locator(".stamp")).to_have_text("Written by AI from these documents.")
    await expect(desk.locator("#question")).to_have_attribute("placeholder", "Type your question")
    assert await desk.locator("body").evaluate("(body) => body.innerText.includes('{')") is False
    await desk.reload()
    await expect(desk.locator("#welcome h2")).to_have_text("How can we help you?")


async def test_a_phone_shows_everything_without_scrolling_sideways(browser: Browser, scripted: Product) -> None:
    async with opened(browser, scripted.url, width=360, height=740) as (page, _):
        await assert_fits(page)
        answer = await ask(page)
        await finished(answer)
        await assert_fits(page)

        await answer.locator(".cite").first.tap()
        sheet = page.locator("#passage")
        await expect(sheet.locator("mark").first).to_be_visible()
        assert await sheet.evaluate("(sheet) => sheet.matches(':modal')")
        await assert_fits(page)
        await sheet.locator("[data-close]").tap()
        await expect(sheet).to_be_hidden()

        await page.locator("#history-open").tap()
        await expect(page.locator("#drawer #history-list li")).to_have_count(1)
        await assert_fits(page)
        await page.locator("#drawer [data-conversation]").tap()
        await expect(page.locator("#drawer")).to_be_hidden()
        await expect(page.locator(".answer .cite").first).to_be_visible()


@pytest.mark.parametrize(("width", "height"), [(360, 640), (640, 360)], ids=["upright", "across"])
async def test_text_of_twice_the_size_leaves_room_to_read(
    browser: Browser, scripted: Product, width: int, height: int
) -> None:
    async with opened(browser, scripted.url, width=width, height=height) as (page, _):
        await page.evaluate("document.documentElement.style.fontSize = '200%'")
        await finished(await ask(page))
        await assert_fits(page)
        assert await page.evaluate("document.getElementById('log').clientHeight") >= 2 * 32 * 1.65  # two lines


async def test_forced_colours_show_focus_and_pressed_buttons(desk: Page) -> None:
    await desk.emulate_media(forced_colors="active")
    await finished(await ask(desk))
    await expect(desk.locator(".field")).to_have_css("outline-style", "solid")
    up, down = desk.get_by_role("button", name="도움이 됐어요"), desk.get_by_role("button", name="도움이 안 됐어요")
    await up.click()
    grounds = [await button.evaluate("(button) => getComputedStyle(button).backgroundColor") for button in (up, down)]
    assert grounds[0] != grounds[1]


async def test_the_keyboard_alone_is_enough(desk: Page) -> None:
    await desk.locator(".brand").click()
    await desk.keyboard.press("Shift+Tab")
    await expect(desk.locator(".skip")).to_be_focused()
    await desk.keyboard.press("Enter")
    await expect(desk.locator("#question")).to_be_focused()

    await desk.keyboard.type("샘물 정기예금 금리")
    await desk.keyboard.press("Shift+Enter")
    await desk.keyboard.type("알려 주세요")
    await expect(desk.locator("#question")).to_have_value("샘물 정기예금 금리\n알려 주세요")
    await desk.keyboard.press("Enter")
    answer = desk.locator(".answer")
    await finished(answer)
    await expect(desk.locator("#question")).to_be_focused()

    marker = await focus_backwards(desk, ".cite")
    await desk.keyboard.press("Enter")
    panel = desk.locator("#passage")
    await expect(panel.locator("mark").first).to_be_visible()
    assert await desk.evaluate("document.getElementById('passage').contains(document.activeElement)")
    await desk.keyboard.press("Escape")
    await expect(panel).to_be_hidden()
    assert await desk.evaluate("document.activeElement.dataset.cite") == marker
    outline = await desk.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"


@pytest.mark.skipif(not AXE.exists(), reason="scripts/test_parts installs it")
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)], ids=["desk, light", "phone, dark"])
async def test_axe_finds_nothing(browser: Browser, scripted: Product, width: int, *, dark: bool) -> None:
    async with opened(browser, scripted.url, width=width, dark=dark) as (page, _):
        await assert_accessible(page)
        answer = await ask(page, f"제 번호는 010-1234-5678입니다. {QUESTION}")  # with the notice that it was masked
        await finished(answer)
        await assert_accessible(page)
        await answer.locator(".cite").first.click()
        await expect(page.locator("#passage mark").first).to_be_visible()
        await assert_accessible(page)
        await page.keyboard.press("Escape")
        await expect(answer.locator(".cite").first).to_be_focused()
        await finished(await ask(page, "상담원 연결해 주세요"))
        await page.locator("[data-language=en]").click()
        await assert_accessible(page)


async def test_enter_in_the_middle_of_a_korean_syllable_does_not_send(desk: Page) -> None:
    await desk.locator("#question").focus()
    session = await desk.context.new_cdp_session(desk)
    await session.send("Input.imeSetComposition", {"text": "금ㄹ", "selectionStart": 2, "selectionEnd": 2})
    await session.send("Input.dispatchKeyEvent", {"type": "rawKeyDown", "key": "Enter", "windowsVirtualKeyCode": 229})
    await desk.locator("#question").evaluate(
        "(field) => field.dispatchEvent(new KeyboardEvent('keydown',"
        " { key: 'Enter', isComposing: true, bubbles: true, cancelable: true }))"
    )
    await expect(desk.locator(".asked")).to_have_count(0)
    await session.send("Input.insertText", {"text": "금리"})
    await expect(desk.locator("#question")).to_have_value("금리")
    await desk.keyboard.press("Enter")
    await expect(desk.locator(".asked")).to_contain_text("금리")
    await finished(desk.locator(".answer"))


async def test_a_screen_reader_gets_whole_sentences_and_the_end(desk: Page) -> None:
    await finished(await ask(desk))
    spoken = await desk.evaluate("window.seen.spoken")
    sentences = [line for line in spoken if any(sentence in line for sentence in SENTENCES)]
    assert " ".join(sentences) == ANSWER
    assert len(sentences) <= len(SENTENCES)
    assert spoken[-1].startswith("답변이 끝났습니다.")


async def test_a_lost_connection_is_resumed_and_no_word_is_missing_or_twice(
    browser: Browser, scripted: Product
) -> None:
    async with wired(scripted.url) as wire, opened(browser, wire.url) as (page, trouble):
        trouble.expected = ("net::ERR_",)
        await scripted.tell(token_seconds=SLOWLY)
        answer = await ask(page)
        await expect(answer.locator(".body")).to_contain_text(SENTENCES[0])
        wire.cut()
        await expect(answer.locator(".status")).to_contain_text("연결이 끊겨")
        wire.mend()
        await finished(answer)
        assert await words(answer) == ANSWER
        await expect(answer.locator(".stamp")).to_be_visible()


async def test_a_running_answer_continues_after_a_reload_and_on_a_second_device(
    browser: Browser, desk: Page, scripted: Product
) -> None:
    await scripted.tell(token_seconds=SLOWLY)
    answer = await ask(desk)
    await expect(answer.locator(".body")).to_contain_text(SENTENCES[0])
    await scripted.tell(token_seconds=HELD)
    await desk.reload()
    await expect(answer).to_have_attribute("aria-busy", "true")
    await expect(answer.locator(".body")).to_contain_text(SENTENCES[0])
    name, address = await customer(desk), desk.url
    async with opened(browser, scripted.url, language="en-US") as (phone, _):
        await phone.evaluate("(name) => localStorage.setItem('bank.customer', name)", name)
        await phone.goto(address.replace("#", "?again#"))  # a load, not a jump in the page that knows another customer
        elsewhere = phone.locator(".answer")
        await expect(elsewhere).to_have_attribute("aria-busy", "true")
        await scripted.tell(token_seconds=0.0)
        for view in (answer, elsewhere):
            await finished(view)
            assert await words(view) == ANSWER
            await expect(view.locator(".cite").first).to_be_visible()
    assert await scripted.running() == 0


async def test_a_first_answer_whose_network_stays_away_is_joined_on_request(
    browser: Browser, scripted: Product
) -> None:
    async with wired(scripted.url) as wire, opened(browser, wire.url) as (page, trouble):
        trouble.expected = ("net::ERR_",)
        await page.clock.install()
        await scripted.tell(token_seconds=SLOWLY)
        answer = await ask(page)
        await expect(answer.locator(".body")).to_contain_text(SENTENCES[0])
        wire.cut()
        for attempt in range(1, 6):
            await expect(answer).to_contain_text(f"({attempt}/5)")
            await page.clock.fast_forward(8_000)
        wire.mend()
        await answer.get_by_role("button", name="다시 시도").click()
        await finished(answer)
        assert await words(answer) == ANSWER


async def test_a_typed_question_survives_a_reload_and_the_end_of_a_session(browser: Browser, scripted: Product) -> None:
    async with opened(browser, scripted.url) as (page, trouble):
        trouble.expected = ("401", "404")
        field = page.locator("#question")
        await field.fill("질문 하나")
        await page.reload()
        await expect(field).to_have_value("질문 하나")
        logins = asyncio.Queue[Route]()
        await page.route("**/v1/chat", lambda route: route.fulfill(status=401))
        await page.route("**/demo/login", logins.put_nowait)
        await field.press("Enter")
        await field.fill("질문 둘")
        await (await logins.get()).fulfill(status=404)
        await expect(page.locator("#sign-in")).to_be_visible()
        assert await field.input_value() == "질문 하나\n질문 둘"


async def test_an_answer_whose_model_dies_is_retried_on_request(browser: Browser, scripted: Product) -> None:
    async with opened(browser, scripted.url) as (page, _):
        await scripted.tell(die_after=len(SENTENCES[0].encode()) + 20, times=None)
        answer = await ask(page)
        box = answer.locator(".trouble")
        await expect(box).to_contain_text("1599-0000")
        await scripted.restore()
        await scripted.tell(answer=ANSWER, probe=0.99)
        await box.get_by_role("button", name="다시 시도").click()
        again = page.locator(".answer")
        await expect(again.locator(".stamp")).to_be_visible(timeout=WAIT)
        assert await words(again) == ANSWER
        await expect(page.locator(".asked")).to_have_count(1)


async def test_a_limit_of_the_minute_counts_down_to_the_next_try(browser: Browser, scripted: Product) -> None:
    async with opened(browser, scripted.url) as (page, trouble):
        trouble.expected = ("429",)
        await scripted.tell(token_seconds=0)
        async with scripted.client(await customer(page)) as http:
            for question in (QUESTION * 100, QUESTION):  # long ones first: the limit is of tokens
                while (await http.post("/v1/chat", json={"message": question, "stream": False})).status_code == 200:
                    pass
        box = (await ask(page)).locator(".trouble[data-code=rate_limited]")
        await expect(box).to_contain_text("짧은 시간에 질문을 많이 하셨습니다")
        await expect(box.get_by_role("button", name="다시 시도")).to_be_disabled()
        left = await box.locator(".countdown").inner_text()
        assert re.fullmatch(r"\d+초 뒤에 다시 시도할 수 있습니다\.", left)
        await expect(box.locator(".countdown")).not_to_have_text(left)


async def test_markup_in_a_question_is_only_text(desk: Page) -> None:
    await finished(await ask(desk, "<img src=x onerror='window.hacked=1'><b>금리</b>는 얼마인가요?"))
    await expect(desk.locator(".asked p")).to_contain_text("<img src=x onerror='window.hacked=1'><b>금리</b>")
    assert await desk.locator("#messages img, #messages b").count() == 0
    assert await desk.evaluate("window.hacked") is None


async def test_a_question_that_is_too_long_is_counted_and_not_sent(desk: Page) -> None:
    field = desk.locator("#question")
    await field.fill("💰" * 4000)
    await expect(desk.locator("#counter")).to_have_text("4,000 / 4,000자")
    await field.fill("가" * 4012)
    await expect(desk.locator("#ask-problem")).to_have_text("4,000자까지 보낼 수 있습니다. 12자를 줄여 주세요.")
    await desk.keyboard.press("Enter")
    await expect(desk.locator(".asked")).to_have_count(0)
    assert len(await field.input_value()) == 4012


# Where the newest question and its answer stand on the screen, from the top of the log.
PLACES = """() => {
  const placeOf = (selector) => [...document.querySelectorAll(selector)].at(-1).getBoundingClientRect();
  const [log, question, answer] = ["#log", ".asked", ".answer"].map(placeOf);
  return { isAtTop: Math.abs(question.top - log.top - 16) <= 1, gap: Math.round(answer.top - question.bottom) };
}"""


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 640)], ids=["desk", "phone"])
async def test_the_question_stays_at_the_top_and_its_answer_begins_below_it(
    browser: Browser, scripted: Product, width: int, height: int
) -> None:
    async with opened(browser, scripted.url, width=width, height=height) as (page, _):
        for question in (QUESTION, f"그리고 {QUESTION}"):
            answer = await ask(page, question)
            at_first = await page.evaluate(PLACES)
            assert at_first == {"isAtTop": True, "gap": 20}
            await finished(answer)
            await expect(answer.locator(".source").first).to_be_attached()
            assert await page.evaluate(PLACES) == at_first
        await page.set_viewport_size({"width": width, "height": height - 250})  # a keyboard comes, and goes
        await page.set_viewport_size({"width": width, "height": height})
        await expect(page.locator("#question")).to_be_in_viewport()
        await until(lambda: placed_as(page, at_first))
        await page.reload()
        await expect(page.locator(".answer .source")).not_to_have_count(0)
        await until(lambda: placed_as(page, at_first))


async def placed_as(page: Page, expected: object) -> bool:
    return bool(await page.evaluate(PLACES) == expected)
