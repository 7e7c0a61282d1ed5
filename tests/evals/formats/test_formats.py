"""The report over a folder of documents: what is wrong, and what the table says."""

import anyio
import pytest
from rich.console import Console

from evals.formats.formats import Expectation, FileReport, report_files, table
from tests.ingest import samples
from tests.ingest import samples_office as office


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> list[FileReport]:
    """The reports of a locked PDF and of a sheet with two figures."""
    folder = tmp_path_factory.mktemp("documents")
    (folder / "docs").mkdir()
    (folder / "docs" / "rates.xlsx").write_bytes(office.xlsx_of(["term", "rate"], [6, 2.1], [12, 2.35]))
    (folder / "docs" / "locked.pdf").write_bytes(samples.pdf(password="1234"))
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return anyio.run(report_files, folder, files, Console(quiet=True))


def test_each_file_is_read_or_refused_and_the_table_has_figures_only(reports: list[FileReport]) -> None:
    locked, read = reports
    assert (locked.outcome, read.outcome) == ("encrypted", "read")
    assert read.letters >= len("term rate 6 21 12 235".replace(" ", ""))
    report = table(reports)
    assert "| docs | xlsx | 1 | 1 |  |" in report
    assert "| docs | pdf | 1 | 0 | encrypted 1 |" in report
    assert "2.35" not in report


def test_another_outcome_than_expected_is_wrong(reports: list[FileReport]) -> None:
    locked, read = reports
    ordinary = Expectation(files="*", outcome=("read",), why="")
    assert list(locked.deviations(None)) == list(read.deviations(ordinary)) == []
    (why,) = locked.deviations(ordinary)
    assert "encrypted" in why
