"""What a workbook's formulas show is read where its file says so; where it does not, nobody approves it."""

import re
import zipfile
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from openpyxl import Workbook
from openpyxl.chart import BarChart

from ingest.review import passage_findings
from tests.ingest.parsing.reading import read, text_of
from tests.passages import FEES

NOT_STORED = "⟦수식의 값이 파일에 없음: "


def saved(book: Workbook) -> bytes:
    book.save(data := BytesIO())
    return data.getvalue()


def with_formula(cell: str = "<c r='B2'><f>A2*3</f><v/></c>", *, hidden: bool = False, is_asked: bool = False) -> bytes:
    """Return a workbook whose B2 is a formula, and which may ask to be calculated when it is opened."""
    book = Workbook()
    book.active.append(["원금", "이자"])
    book.active.append([1000, "=A2*3"])
    book.active.column_dimensions["B"].hidden = hidden
    calculated = BytesIO()
    with zipfile.ZipFile(BytesIO(saved(book))) as source, zipfile.ZipFile(calculated, "w") as target:
        for name in source.namelist():
            part = re.sub(r'<c r="B2".*?</c>', cell, source.read(name).decode())
            target.writestr(name, part if is_asked else part.replace('fullCalcOnLoad="1"', ""))
    return calculated.getvalue()


@pytest.mark.parametrize("is_asked", [False, True])
def test_a_formula_without_a_stored_value_blocks_an_approval(tmp_path: Path, *, is_asked: bool) -> None:
    parsed = read(tmp_path, with_formula(is_asked=is_asked))
    assert f"{NOT_STORED}B2⟧" in text_of(parsed)
    assert [finding.blocks for finding in passage_findings([replace(FEES, text=text_of(parsed))])] == [True]


def test_a_cell_whose_name_is_padded_blocks_an_approval_too(tmp_path: Path) -> None:
    text = text_of(read(tmp_path, with_formula(f"<c r='B2{' ' * 90}'><f>A2*3</f><v/></c>")))
    assert [finding.blocks for finding in passage_findings([replace(FEES, text=text)])] == [True]


def test_a_formula_in_a_hidden_column_blocks_nothing(tmp_path: Path) -> None:
    assert NOT_STORED not in text_of(read(tmp_path, with_formula(hidden=True)))


@pytest.mark.parametrize(
    ("cell", "row"),
    [
        ('<c r="B2"><f>A2*3</f><v>0</v></c>', "| 1000 | 0 |"),
        ('<c r="B2" t="str"><f>A2</f><v>면제</v></c>', "| 1000 | 면제 |"),
        ('<c r="B2" t="str"><f>A2</f><v></v></c>', "| 1000 |  |"),
    ],
)
def test_a_stored_value_is_read_unless_the_file_asks_to_be_calculated(tmp_path: Path, cell: str, row: str) -> None:
    text = text_of(read(tmp_path, with_formula(cell)))
    assert row in text
    assert NOT_STORED not in text
    assert f"{NOT_STORED}B2⟧" in text_of(read(tmp_path, with_formula(cell, is_asked=True)))


def test_a_workbook_with_a_sheet_that_is_a_chart_is_read(tmp_path: Path) -> None:
    book = Workbook()
    book.active.append(["6개월", 2.1])
    book.create_chartsheet("차트").add_chart(BarChart())
    assert "| 6개월 | 2.1 |" in text_of(read(tmp_path, saved(book)))
