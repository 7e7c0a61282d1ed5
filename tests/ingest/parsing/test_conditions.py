"""Cells of a workbook that a conditional format hides are no text of it."""

from io import BytesIO
from pathlib import Path

import pytest
from openpyxl import Workbook
from openpyxl.formatting.rule import CellIsRule, FormulaRule, Rule
from openpyxl.styles import Font, PatternFill
from openpyxl.styles.differential import DifferentialStyle
from openpyxl.styles.numbers import NumberFormat

from tests.ingest.parsing.reading import read, text_of

RATES = (("기간", "금리"), ("6개월", 2.1), ("12개월", 99))


def conditioned(rule: Rule, area: str = "A1:B3") -> bytes:
    """Return a workbook with a rule for some of its cells."""
    book = Workbook()
    for row in RATES:
        book.active.append(row)
    book.active.conditional_formatting.add(area, rule)
    buffer = BytesIO()
    book.save(buffer)
    return buffer.getvalue()


IN_WHITE, ON_BLACK = Font(color="FFFFFF"), PatternFill(bgColor="FF000000")


@pytest.mark.parametrize(
    "rule",
    [
        CellIsRule(operator="greaterThan", formula=["50"], font=IN_WHITE),
        CellIsRule(operator="between", formula=["100", "98.5"], font=IN_WHITE),
        CellIsRule(operator="equal", formula=["99"], font=Font(color="000000"), fill=ON_BLACK),
        CellIsRule(operator="greaterThan", formula=["50"], font=IN_WHITE, fill=PatternFill(bgColor="00FFFFFF")),
        Rule(
            type="cellIs", operator="notEqual", formula=["2.1"], dxf=DifferentialStyle(numFmt=NumberFormat(200, ";;;"))
        ),
        FormulaRule(formula=["LEN(B1)=2"], font=IN_WHITE),
    ],
)
def test_cells_that_a_condition_hides_are_left_out(tmp_path: Path, rule: Rule) -> None:
    text = text_of(read(tmp_path, conditioned(rule, "B3")))
    assert "| 6개월 | 2.1 |" in text
    assert "99" not in text


@pytest.mark.parametrize(
    "rule",
    [
        CellIsRule(operator="equal", formula=["0"], font=IN_WHITE),
        CellIsRule(operator="lessThan", formula=["2"], font=IN_WHITE),
        CellIsRule(operator="equal", formula=['"없음"'], font=IN_WHITE),
        CellIsRule(operator="greaterThan", formula=["50"], font=Font(color="FF0000")),
        CellIsRule(operator="greaterThan", formula=["50"], font=IN_WHITE, fill=ON_BLACK),
        FormulaRule(formula=["ISERROR(A1)"], font=IN_WHITE),
        FormulaRule(formula=["MOD(ROW(),2)=0"], fill=PatternFill(bgColor="DDEEFF")),
    ],
)
def test_cells_that_no_condition_hides_are_read(tmp_path: Path, rule: Rule) -> None:
    assert "| 6개월 | 2.1 |\n| 12개월 | 99 |" in text_of(read(tmp_path, conditioned(rule)))
