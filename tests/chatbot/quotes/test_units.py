"""What of a passage is quoted: a piece that its author wrote as one."""

from dataclasses import replace

import pytest

from chatbot.quotes import nearest_unit, units_of
from chatbot.quotes.units import unit_for
from tests.chatbot.grounding.fed_streams import passage

FEES = "| Amount | App | Counter |\n|---|---|---|\n| Up to USD 500 | KRW 3,000 | KRW 5,000 |"
CABLE = "A cable charge of KRW 8,000 is added to every remittance at a branch."
FILLER = "The branch is open on weekdays and has a car park behind the building. " * 12
SHORT = passage("fees", "Remittance", f"## Fees\n\n{FEES}\n\n{CABLE}", "en")


def long(*parts: str) -> tuple[str, ...]:
    return units_of(passage("long", "Long", "\n\n".join([*parts, FILLER.strip()])))


def test_a_short_section_is_quoted_whole_and_without_its_heading() -> None:
    assert units_of(SHORT) == (f"{FEES}\n\n{CABLE}",)


def test_a_passage_of_headings_alone_has_no_unit() -> None:
    assert units_of(passage("h", "Heading", "# Heading\n\n## Another")) == ()


@pytest.mark.parametrize(
    ("above", "below"),
    [
        ("우대금리는 다음과 같습니다.", "- 앱에서 가입하면 0.10%포인트\n- 급여를 받으면 0.10%포인트"),
        ("The fees are:", FEES),
        ("**Fees**", "Every remittance at a branch costs KRW 8,000."),
        (FEES, "※ 만 65세 이상은 절반입니다."),
        ("가입 금액에는 제한이 없습니다.", "단, 앱에서는 1억원까지입니다."),
        ("the insurance that you must buy before", "half of the lease has passed."),
        ("1. 신분증", "2. 위임장"),
    ],
)
def test_paragraphs_that_belong_together_are_one_unit(above: str, below: str) -> None:
    assert long(above, below)[0] == f"{above}\n\n{below}"


def test_paragraphs_are_units_by_themselves() -> None:
    assert long("첫째 문단입니다. 길이가 조금 있습니다.", "둘째 문단입니다.")[:2] == (
        "첫째 문단입니다. 길이가 조금 있습니다.",
        "둘째 문단입니다.",
    )


def test_every_unit_stands_in_its_passage() -> None:
    text = f"# T\n\n{FEES}\n\n{CABLE}\n\n{FILLER}\n\n- a\n- b\n"
    assert all(piece in text for piece in units_of(passage("p", "T", text)))


def test_of_a_long_section_the_nearest_unit_is_quoted() -> None:
    source = passage("long", "Long", f"## Head\n\n{FEES}\n\n{CABLE}\n\n{FILLER.strip()}", "en")
    assert unit_for("Is there a cable charge?", source) == f"{FEES}\n\n{CABLE}", "the table, and the remark below it"
    assert unit_for("Tell me everything", source) == source.text.removeprefix("## Head\n\n")


def test_the_nearest_unit_shares_words_with_the_question() -> None:
    source = replace(SHORT, text=f"{FEES}\n\n{CABLE}\n\n{FILLER}")
    assert nearest_unit("cable charge", source) == f"{FEES}\n\n{CABLE}"
    assert nearest_unit("xylophone", source) == ""
