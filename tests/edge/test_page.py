"""Both pages show the host's bank, and nothing of the sample bank if another one is configured."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from chatbot.api import create_app as create_chat_app
from chatbot.services import Services as ChatServices
from edge.page import dial_string
from ingest.app import create_app as create_staff_app
from ingest.services import Services as StaffServices
from knowledge.bank import Banks, read_banks
from tests.bank import LOGO, of_the_sample_bank, write_bank

ROOT = Path(__file__).parents[2]
PAGES = {"chat": ROOT / "chatbot/api/web", "staff": ROOT / "ingest/api/web"}


def application(name: str, banks: Banks) -> FastAPI:
    """Return an application that serves only pages."""
    if name == "chat":
        services = SimpleNamespace(banks=banks, ledger=None, models=None, sign_in=None)
        return create_chat_app(cast("ChatServices", services))
    services = SimpleNamespace(blobs=SimpleNamespace(most_bytes=1), sign_in=None)
    return create_staff_app(cast("StaffServices", services), banks)


def served(name: str, http: TestClient) -> dict[str, str]:
    """Return the texts of an application's page, of its files and of its OpenAPI, by path."""
    files = [path.name for folder in (PAGES[name], ROOT / "edge/web") for path in folder.iterdir()]
    own = ["bank.js", "bank.css", "logo"]
    addresses = ["/", "/openapi.json", *(f"/web/{file}" for file in {*files, *own} - {"index.html"})]
    replies = {address: http.get(address) for address in addresses}
    assert {address for address, reply in replies.items() if reply.status_code != 200} == set()
    return {address: reply.text for address, reply in replies.items()}


@pytest.mark.parametrize("name", PAGES)
def test_another_bank_shows_nothing_of_the_sample_bank(name: str, tmp_path: Path) -> None:
    app = application(name, read_banks(write_bank(tmp_path)))
    for host, bank in (("chat.dawn.example", "새벽은행"), ("chat.dusk.example", "노을은행")):
        texts = served(name, TestClient(app, base_url=f"http://{host}"))
        assert {address: marks for address, text in texts.items() if (marks := of_the_sample_bank(text))} == {}
        assert bank in texts["/"]
        assert bank in texts["/web/bank.js"]
        assert "{{" not in texts["/"]
        assert "Dawn Bank" in texts["/openapi.json"], "of an API that serves several: the first"
        assert (texts["/web/logo"] == LOGO) is (bank == "새벽은행")
        assert "--brand:#7a1f3d" in texts["/web/bank.css"]


def test_the_page_dials_the_bank_s_telephone_before_any_script_runs(tmp_path: Path) -> None:
    banks = read_banks(write_bank(tmp_path))
    page = TestClient(application("chat", banks), base_url="http://chat.dusk.example:8443").get("/").text
    assert 'href="tel:18009000"' in page
    assert re.search(r"<noscript>.*1800-9000.*</noscript>", page)
    assert "1800-7000" in TestClient(application("chat", banks)).get("/", headers={"host": "["}).text
    assert dial_string("+82 (2) 700-0002") == "+8227000002"


def test_markup_in_a_name_is_escaped(tmp_path: Path) -> None:
    banks = read_banks(write_bank(tmp_path, names={"ko": "<b>은행", "en": "</script>"}))
    http = TestClient(application("chat", banks))
    assert "<b>" not in http.get("/").text
    assert http.get("/web/bank.js").headers["content-type"].startswith("text/javascript")


def test_a_browser_revalidates_the_banks_files(tmp_path: Path) -> None:
    http = TestClient(application("staff", read_banks(write_bank(tmp_path))))
    for address in ("/", "/web/bank.js", "/web/bank.css", "/web/logo", "/web/app.js"):
        assert http.get(address).headers["cache-control"] == "no-cache"
    assert http.get("/web/logo").headers["content-type"] == "image/svg+xml"
