"""A link, an image or a mail address is shown only where a passage contains it."""

import pytest

from chatbot.grounding.links import first_unknown_link
from tests.chatbot.grounding.fed_streams import checked, passage

TEXT = "한빛 정기예금의 기본 금리는 연 3.10%입니다. 자세한 내용은 www.hanbit.example/deposit 을 보세요."
PASSAGE = passage("deposit", "정기예금", TEXT)


@pytest.mark.parametrize(
    ("text", "link"),
    [
        ("연 3.10%입니다 (https://evil.example/x).", "https://evil.example/x"),
        ("![그림](https://evil.example/?q=3.10)", "https://evil.example/?q=3.10"),
        ("[기본 금리](//evil.example)는", "//evil.example"),
        ("문의: thief@evil.example.", "thief@evil.example"),
        ("hanbit-bank.com 에서 확인하세요", "hanbit-bank.com"),
        ("javascript:alert(1)", "javascript:alert(1"),
    ],
)
def test_a_link_that_no_passage_contains_is_found(text: str, link: str) -> None:
    assert first_unknown_link(text, [TEXT]) == link


@pytest.mark.parametrize(
    "text",
    ["www.hanbit.example/deposit 을 보세요.", "WWW.HANBIT.EXAMPLE", "연 3.10%, 1.5.2항, 5 p.m.", "e.g. a deposit", ""],
)
def test_a_known_link_and_a_text_without_a_link_pass(text: str) -> None:
    assert first_unknown_link(text, [TEXT]) is None


@pytest.mark.parametrize(
    "planted",
    [
        "한빛 정기예금의 기본 금리는 연 3.10%입니다 https://evil.example/x 참고.",
        "[한빛 정기예금의 기본 금리](https://evil.example)는 연 3.10%입니다.",
        "문의는 thief@evil.example 로, 한빛 정기예금 기본 금리는 연 3.10%입니다.",
    ],
)
def test_a_supported_sentence_with_a_strangers_link_is_withheld(planted: str) -> None:
    checks = checked(planted, [PASSAGE])
    assert "evil" not in checks.text
    assert checks.withheld == 1
    own = checked(TEXT, [PASSAGE])
    assert ("www.hanbit.example/deposit" in own.text, own.grounded) == (True, True)
