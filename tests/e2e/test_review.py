"""What an approver sees in Chromium is what customers are quoted: both services in one process, as `make run` has them.

Each piece that a file hides is on the review page, or counted there as left out.
"""

import os
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import uuid4

import docx
import pytest
from docx.oxml import parse_xml
from docx.shared import RGBColor
from openpyxl import Workbook
from opentelemetry.sdk.trace import TracerProvider
from PIL import Image
from playwright.async_api import Browser, Page, expect

from ingest.parsing import ParserSettings, open_readers
from knowledge.embedding import EmbedderSettings, open_embedder
from knowledge.index import IndexSettings
from knowledge.terms import Terms
from llm_server.scripted import scripted_server
from tests.conftest import DURABLE, redis_server
from tests.e2e.browser import NEEDS_CHROMIUM, WAIT, launched
from tests.e2e.conftest import until
from tests.e2e.events import read_events
from tests.one_process import Bank, Stores, open_bank

pytestmark = [pytest.mark.anyio, pytest.mark.e2e, pytest.mark.services, pytest.mark.browser, NEEDS_CHROMIUM]

NAMES = " ".join(
    f'xmlns:{prefix}="{name}"'
    for prefix, name in {
        "w": "http://schemas.openxmlformats.org/wordprocessingml/2006/main",
        "wp": "http://schemas.openxmlformats.org/drawingml/2006/wordprocessingDrawing",
        "a": "http://schemas.openxmlformats.org/drawingml/2006/main",
        "r": "http://schemas.openxmlformats.org/officeDocument/2006/relationships",
        "pic": "http://schemas.openxmlformats.org/drawingml/2006/picture",
        "wps": "http://schemas.microsoft.com/office/word/2010/wordprocessingShape",
    }.items()
)
SEEN = "은하 송금의 수수료는 건당 5,000원입니다."
WHITE = "은하 송금의 한도는 하루 300만원입니다."
BOXED = "은하 송금은 평일 16시에 마감합니다."
HIDDEN = "은하 송금은 내부 직원에게 면제됩니다."
QUESTION = "은하 송금의 수수료는 건당 얼마인가요?"
RATES = [["기간", "금리"], ["혜성 6개월", "연 2.10%"], ["혜성 12개월", "연 2.35%"], ["혜성 24개월", "연 9.99%"]]


def word() -> bytes:
    """A Word file: a paragraph, a hidden one, a white one, and a text box under a picture."""
    document, picture, made = docx.Document(), BytesIO(), BytesIO()
    document.add_heading("은하 송금 안내", 1)
    document.add_paragraph(SEEN)
    document.add_paragraph().add_run(HIDDEN).font.hidden = True
    document.add_paragraph().add_run(WHITE).font.color.rgb = RGBColor(255, 255, 255)
    text = f"<wps:txbx><w:txbxContent><w:p><w:r><w:t>{BOXED}</w:t></w:r></w:p></w:txbxContent></wps:txbx>"
    Image.new("RGB", (64, 64)).save(picture, "PNG")
    relation, _ = document.part.get_or_add_image(picture)
    blip = f'<pic:blipFill><a:blip r:embed="{relation}"/></pic:blipFill>'
    anchored = document.add_paragraph()._p
    for height, graphic in (
        (1, f"<wps:wsp><wps:cNvSpPr/><wps:spPr/>{text}<wps:bodyPr/></wps:wsp>"),
        (2, f"<pic:pic>{blip}<pic:spPr/></pic:pic>"),
    ):
        anchored.append(
            parse_xml(
                f'<w:r {NAMES}><w:drawing><wp:anchor relativeHeight="{height}"><wp:extent cx="2000000" cy="900000"/>'
                f'<wp:wrapNone/><wp:docPr id="{height}" name="{height}"/><a:graphic><a:graphicData uri="">{graphic}'
                "</a:graphicData></a:graphic></wp:anchor></w:drawing></w:r>"
            )
        )
    document.save(made)
    return made.getvalue()


def workbook() -> bytes:
    """A workbook with a hidden row and a hidden sheet."""
    book, made = Workbook(), BytesIO()
    sheet = book.active
    sheet.title = "혜성 적금"
    for row in RATES:
        sheet.append(row)
    sheet.row_dimensions[len(RATES)].hidden = True
    hidden = book.create_sheet("원가")
    hidden.append(["혜성 원가", "연 1.00%"])
    hidden.sheet_state = "hidden"
    book.save(made)
    return made.getvalue()


@pytest.fixture(scope="module")
def weights() -> Path:
    """Where `llm-server fetch e5-small` put the embedding model; `make test` has run it."""
    root = os.environ.get("WEIGHTS_DIR") or "~/.cache/bank-chatbot/weights"  # noqa: TID251  the test runner's own edge
    return Path(root).expanduser()


@pytest.fixture(scope="module")
async def bank(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Bank]:
    folder = tmp_path_factory.mktemp("review")
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        stores = Stores(
            redis=stack.enter_context(redis_server(folder / "redis", *DURABLE)),
            model=await enter(scripted_server()),
            database_url=f"sqlite+aiosqlite:///{folder / 'bank.db'}",
            index=IndexSettings(path=folder / "qdrant"),
            weights=weights,
            embedder=await enter(open_embedder(EmbedderSettings(folder=weights / "e5-small"))),
            terms=Terms(),
            readers=await enter(open_readers(ParserSettings())),
        )
        yield await enter(open_bank(folder, stores, TracerProvider()))


@pytest.fixture
async def browser() -> AsyncGenerator[Browser]:
    async with launched() as browser:
        yield browser


@dataclass
class Review:
    """The review page of a version, as an approver has it open; `passages` are those that the page was sent."""

    page: Page
    passages: dict[int, dict[str, Any]]

    async def text(self) -> str:
        return await self.page.locator("#review-passages").inner_text()

    async def left_out(self) -> str:
        return await self.page.locator("#review-left-out").inner_text()


async def reviewed(bank: Bank, browser: Browser, name: str, data: bytes) -> tuple[Review, str]:
    """Upload a file as one person; open its review as another; return it and the version's address."""
    http, uploader = bank.staff.http, bank.staff.headers("kim", "staff")
    job = (await http.post("/v1/documents", files={"file": (name, data)}, headers=uploader)).json()

    async def indexed() -> bool:
        return bool((await http.get(f"/v1/jobs/{job['job_id']}", headers=uploader)).json()["state"] == "done")

    await until(indexed, 10)
    page = await (await browser.new_context(locale="en-US")).new_page()
    page.set_default_timeout(WAIT)
    review = Review(page, {})

    async def keep(response: Any) -> None:
        if "/passages?" in response.url:
            review.passages |= {passage["n"]: passage for passage in (await response.json())["passages"]}

    page.on("response", keep)
    place = f"{job['document_id']}/{job['version']}"
    await page.goto(f"{http.base_url}/#/review/{place}")
    await page.locator("#token").fill(bank.staff.headers("lee", "staff", "approver")["authorization"].split()[1])
    await page.keyboard.press("Enter")
    await expect(page.locator("#approve")).to_be_enabled()
    return review, f"/v1/documents/{place.replace('/', '/versions/')}"


async def quoted(bank: Bank, question: str, of: str) -> tuple[str, dict[str, Any]]:
    """Ask until an answer quotes a passage of a document; return the quote and the passage as its customer reads it."""
    found: list[tuple[str, dict[str, Any]]] = []
    customer = bank.chat.headers(uuid4().hex, "customer")

    async def one_does() -> bool:
        async with bank.chat.http.stream("POST", "/v1/chat", json={"message": question}, headers=customer) as response:
            events = [event async for event in read_events(response)]
        answer_id = events[0].field("answer_id")
        for event in events:
            if event.name == "citation":
                address = f"/v1/answers/{answer_id}/sources/{event.field('n')}"
                source = (await bank.chat.http.get(address, headers=customer)).json()
                if source["document_id"] == of:
                    found.append((str(event.field("quote")), source))
        return bool(found)

    await until(one_does, 20)
    return found[0]


async def test_each_piece_of_a_word_file_is_shown_or_counted_and_an_answer_quotes_what_was_shown(
    bank: Bank, browser: Browser
) -> None:
    review, version = await reviewed(bank, browser, "은하 송금 안내.docx", word())
    shown = await review.text()
    assert [piece in shown for piece in (SEEN, WHITE, BOXED)] == [True, True, True]
    assert HIDDEN not in shown
    assert "1 paragraph of hidden text" in await review.left_out()
    texts = {n: await review.page.locator(f"#passage-{n} .passage-text").inner_text() for n in review.passages}
    await review.page.locator("#approve").click()
    await expect(review.page.locator("#view-said")).to_contain_text("Approved")
    document_id = version.split("/")[3]
    quote, source = await quoted(bank, QUESTION, document_id)
    passage = review.passages[passage_number(review, source["text"])]
    assert source["text"].encode() == passage["text"].encode(), "byte for byte"
    assert quote.encode() in passage["text"].encode()
    assert quote in texts[passage["n"]]


async def test_hidden_rows_and_sheets_of_a_workbook_are_counted_and_its_table_is_a_table(
    bank: Bank, browser: Browser
) -> None:
    review, _ = await reviewed(bank, browser, "혜성 적금.xlsx", workbook())
    cells = await review.page.locator("#review-passages td").all_inner_texts()
    assert cells == [cell for row in RATES[1:3] for cell in row]
    assert "|" not in await review.text()
    left_out = await review.left_out()
    assert "1 hidden row" in left_out
    assert "1 hidden sheet" in left_out


def passage_number(review: Review, text: str) -> int:
    (n,) = [n for n, passage in review.passages.items() if passage["text"] == text]
    return n
