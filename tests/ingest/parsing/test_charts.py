"""The numbers of a slide's charts stand beside what is drawn below them."""

from datetime import date
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pptx import Presentation
from pptx.chart import data as chart_data
from pptx.enum.chart import XL_CHART_TYPE
from pptx.util import Inches

from tests.ingest.parsing.reading import read, text_of

kinds: Any = chart_data  # which publishes no types


def drawn(folder: Path, kind: XL_CHART_TYPE, data: Any, *, without: str = "") -> list[str]:
    """Return the rows of a chart's table, of a file that lacks an element of the chart."""
    presentation = Presentation()
    slide = presentation.slides.add_slide(presentation.slide_layouts[6])
    place = (Inches(1), Inches(1), Inches(4), Inches(3))
    chart = slide.shapes.add_chart(kind, *place, data).chart
    for element in chart._chartSpace.xpath(without) if without else ():
        element.getparent().remove(element)
    presentation.save(file := BytesIO())
    return text_of(read(folder, file.getvalue())).splitlines()[2:]


def of(*labels: str | float | date) -> Any:
    data = kinds.CategoryChartData()
    data.categories = labels
    data.add_series("금리", [3.5, 4.0, 4.5])
    return data


@pytest.mark.parametrize(
    ("labels", "without", "rows"),
    [
        (("서울", "부산", "광주"), "//c:cat/*/*/c:pt[2]", ["| 서울 | 3.5 |", "|  | 4 |", "| 광주 | 4.5 |"]),
        (("서울", "부산", "광주"), "//c:cat", ["| 3.5 |", "| 4 |", "| 4.5 |"]),
        ((date(2026, 1, 1), date(2026, 2, 1), date(2026, 3, 1)), "//c:cat/*/*/c:pt[3]",
         ["| 2026-01-01 | 3.5 |", "| 2026-02-01 | 4 |", "|  | 4.5 |"]),
        ((6, 12, 24), "", ["| 6 | 3.5 |", "| 12 | 4 |", "| 24 | 4.5 |"]),
    ],
)  # fmt: skip
def test_each_value_stands_beside_its_label(
    tmp_path: Path, labels: tuple[str | float | date, ...], without: str, rows: list[str]
) -> None:
    assert drawn(tmp_path, XL_CHART_TYPE.COLUMN_CLUSTERED, of(*labels), without=without) == rows


def test_labels_of_two_levels_are_both_read(tmp_path: Path) -> None:
    data = kinds.CategoryChartData()
    for year in ("2025", "2026"):
        above = data.add_category(year)
        for half in ("상반기", "하반기"):
            above.add_sub_category(half)
    data.add_series("금리", [1, 2, 3, 4])
    rows = drawn(tmp_path, XL_CHART_TYPE.COLUMN_CLUSTERED, data, without="//c:lvl[1]/c:pt[2]")
    assert rows == ["| 2025 / 상반기 | 1 |", "|  | 2 |", "| 2026 / 상반기 | 3 |", "| 2026 / 하반기 | 4 |"]


def test_points_have_both_of_their_numbers(tmp_path: Path) -> None:
    points, bubbles = kinds.XyChartData(), kinds.BubbleChartData()
    points.add_series("금리").add_data_point(1.5, 3.5)
    bubbles.add_series("한도").add_data_point(2, 4, 100)
    assert drawn(tmp_path, XL_CHART_TYPE.XY_SCATTER, points) == ["| 1.5 | 3.5 |"]
    assert drawn(tmp_path, XL_CHART_TYPE.BUBBLE, bubbles) == ["| 2 | 4 | 100 |"]
