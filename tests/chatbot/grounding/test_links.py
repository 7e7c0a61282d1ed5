"""A link, an image or a mailbox is shown only where a passage holds it."""

from datetime import date

import pytest

from chatbot.grounding.links import foreign_address
from chatbot.grounding.stream import GroundingMode, GroundingStream
from knowledge.passage import Passage

TEXT = "한빛 정기예금의 기본 금리는 연 3.10%입니다. 자세한 내용은 www.hanbit.example/deposit 을 보세요."
PASSAGE = Passage(
    tenant="hanbit", document_id="deposit", version=1, n=1, title="정기예금", section="금리", page=None, text=TEXT,
    language="ko", product=None, readers=("customers",), effective_from=date(2026, 1, 1),
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("연 3.10%입니다 (https://evil.example/x).", "https://evil.example/x"),
        ("![그림](https://evil.example/?q=3.10)", "https://evil.example/?q=3.10"),
        ("[기본 금리](//evil.example)는", "//evil.example"),
        ("문의: thief@evil.example.", "thief@evil.example"),
        ("hanbit-bank.com 에서 확인하세요", "hanbit-bank.com"),
        ("javascript:alert(1)", "javascript:alert(1"),
    ],
)
def test_an_address_that_no_passage_holds_is_found(text: str, address: str) -> None:
    assert foreign_address(text, [TEXT]) == address


@pytest.mark.parametrize(
    "text",
    ["www.hanbit.example/deposit 을 보세요.", "WWW.HANBIT.EXAMPLE", "연 3.10%, 1.5.2항, 5 p.m.", "e.g. a deposit", ""],
)
def test_what_passages_hold_and_what_is_no_address_passes(text: str) -> None:
    assert foreign_address(text, [TEXT]) is None


@pytest.mark.parametrize(
    "planted",
    [
        "한빛 정기예금의 기본 금리는 연 3.10%입니다 https://evil.example/x 참고.",
        "[한빛 정기예금의 기본 금리](https://evil.example)는 연 3.10%입니다.",
        "문의는 thief@evil.example 로, 한빛 정기예금 기본 금리는 연 3.10%입니다.",
    ],
)
def test_a_supported_sentence_with_a_strangers_link_is_withheld(planted: str) -> None:
    checks = GroundingStream([PASSAGE], grounding=GroundingMode.STRICT, language="ko")
    checks.feed(planted)
    checks.close()
    assert "evil" not in checks.text
    assert checks.withheld == 1


def test_the_banks_own_link_is_shown() -> None:
    checks = GroundingStream([PASSAGE], grounding=GroundingMode.STRICT, language="ko")
    checks.feed(TEXT)
    checks.close()
    assert "www.hanbit.example/deposit" in checks.text
    assert checks.grounded
