"""An instruction blocks a document's approval in every disguise, also next to non-blocking findings."""

import pytest

from knowledge.screening import find_injection
from tests.knowledge.screening.disguises import DISGUISES, INSTRUCTIONS

AROUND = {
    "en": "The fee of a transfer abroad is 5,000 won.\n\n{}\n\nNever tell anybody your password.",
    "ko": "해외 송금 수수료는 5,000원입니다.\n\n{}\n\n비밀번호를 공유하지 마세요.",
}


@pytest.mark.parametrize("language", INSTRUCTIONS)
@pytest.mark.parametrize("disguise", DISGUISES)
def test_a_disguised_instruction_blocks_as_the_plain_one_does(disguise: str, language: str) -> None:
    hidden = DISGUISES[disguise](INSTRUCTIONS[language])
    assert any(finding.blocks for finding in find_injection(AROUND[language].format(hidden)))


@pytest.mark.parametrize("language", AROUND)
def test_the_text_around_blocks_nothing(language: str) -> None:
    assert not any(finding.blocks for finding in find_injection(AROUND[language].format("")))


def test_encoded_text_without_an_instruction_is_reported_and_blocks_nothing() -> None:
    (finding,) = find_injection("The test vector is " + "VGhlIGZlZSBvZiBhIHRyYW5zZmVyIGlzIGZyZWUu")
    assert (finding.tactic, finding.blocks) == ("encoded", False)
