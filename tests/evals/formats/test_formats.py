"""The report over a folder of documents: what counts as a share, what is wrong, and what the table says."""

import warnings
from pathlib import Path

import anyio
import pytest
from rich.console import Console

from evals.formats.formats import EXPECTED, Expectation, FileReport, compare, read_expected, report_files, table
from evals.formats.other_parsers import PARSERS
from ingest.parsing import Format
from tests.ingest import samples
from tests.ingest import samples_office as office


@pytest.mark.parametrize(
    ("ours", "other", "share"),
    [
        ("| 6개월 | 2.10% |", "6개월 2.10%", 1.0),
        ("연 금리", "금리 연 ２", 0.75),  # full width: it counts as 2
        ("aab", "AAAA", 0.5),  # each as often as it stands there
        ("text", "", None),
    ],
)
def test_the_share_is_of_letters_and_digits_wherever_they_stand(ours: str, other: str, share: float | None) -> None:
    assert compare(ours, other).share == share


@pytest.mark.parametrize(
    ("ours", "other", "missing"),
    [
        ("| 6 | 2.10% |", "6개월 2.10%", 0),
        ("2.10 2.1", "２.１０ 2.10", 1),  # each as often as it stands there
        ("2.10", "12.10", 1),
        ("1000000", "1,000,000", 1),
        ("21.0", "2.10", 1),
    ],
)
def test_a_figure_is_missing_that_does_not_stand_there_as_a_whole(ours: str, other: str, missing: int) -> None:
    assert compare(ours, other).figures_missing == missing


def test_every_format_is_compared_with_another_parser() -> None:
    assert set(PARSERS) == set(Format)


def looked_at(folder: Path, *expected: Expectation) -> list[FileReport]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return anyio.run(report_files, folder, files, expected, Console(quiet=True))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "rates.xlsx").write_bytes(office.xlsx_of(["term", "rate"], [6, 2.1], [12, 2.35]))
    (tmp_path / "docs" / "locked.pdf").write_bytes(samples.pdf(password="1234"))
    return tmp_path


def test_every_file_is_read_or_refused_and_the_table_has_figures_only(folder: Path) -> None:
    locked, read = looked_at(folder)
    assert (locked.outcome, read.outcome, read.compared.share) == ("encrypted", "read", 1.0)
    assert 20 * 2**20 < read.memory < 2**30
    assert not locked.wrong
    assert not read.wrong
    report = table([locked, read])
    assert "| docs | xlsx | 1 | 1 |  | 100.0%, 100.0% | 0 of 4 |" in report
    assert "| docs | pdf | 1 | 0 | encrypted 1 |" in report
    assert "2.35" not in report


def test_another_outcome_than_expected_and_too_small_a_share_are_wrong(folder: Path) -> None:
    locked, read = looked_at(
        folder,
        Expectation(files="*.pdf", outcome=("read",), why="", least_share=0.95),
        Expectation(files="*", outcome=("read",), why="", least_share=1.1),
    )
    assert "encrypted" in locked.wrong
    assert "100.0%" in read.wrong


def test_a_file_of_which_the_other_parser_finds_nothing_is_wrong_unless_that_is_expected(tmp_path: Path) -> None:
    head = b"From: a@bank.example\nTo: b@bank.example\nMIME-Version: 1.0\nContent-Type: text/html\n\n"
    (tmp_path / "only_html.eml").write_bytes(head + b"<p>The rate is 2.35 percent.</p>\n")
    (unknown,) = looked_at(tmp_path)
    (read,) = looked_at(tmp_path, Expectation(files="*", outcome=("read",), why=""))
    (unchecked,) = looked_at(tmp_path, Expectation(files="*", outcome=("read",), why="", least_share=0))
    assert (unknown.outcome, unknown.compared.share) == ("read", None)
    assert "nothing to compare" in unknown.wrong
    assert "nothing to compare" in read.wrong
    assert not unchecked.wrong


def test_the_expectations_of_each_folder_are_valid() -> None:
    expected = read_expected(EXPECTED)
    assert expected[-1].files == "*"
    assert all(expectation.why for expectation in expected)
