"""A sentence names an amount as its unit does."""

from dataclasses import replace

import pytest

from chatbot.grounding.support import checked_units
from tests.passages import FEES

FEES_ABROAD = """| Amount sent | App | Branch |
| --- | --- | --- |
| Up to USD 500 | KRW 3,000 | KRW 5,000 |

A cable charge of KRW 8,000 is added to every remittance at a branch. A recall costs KRW 10,000.

전신료는 8,000원이고, 중도해지 수수료는 20,000원입니다."""


@pytest.mark.parametrize(("sentence", "is_stated"), [
    ("The bank charges KRW 8,000 for every remittance at a branch.", False),
    ("A cable charge of KRW 8,000 is added at a branch.", True),
    ("A recall costs KRW 10,000.", True),
    ("Sending up to USD 500 in the app costs KRW 3,000.", True),
    ("송금 수수료는 8,000원입니다.", False),
    ("전신료는 8,000원입니다.", True),
])  # fmt: skip
def test_an_amount_in_a_sentence_needs_the_name_of_its_unit(sentence: str, *, is_stated: bool) -> None:
    units = checked_units(
        [replace(FEES, text=FEES_ABROAD)], question="송금 수수료, remittance fee?", contact="1599-0000"
    )
    assert any(unit.states(sentence) for unit in units) is is_stated
