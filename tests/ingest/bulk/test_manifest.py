import re
from pathlib import Path

import pytest

from ingest.bulk import ManifestError, find_files


@pytest.mark.parametrize("named", ["a.md", "./a.md"])
def test_a_file_is_named_without_the_folder_that_its_manifest_stands_in(tmp_path: Path, named: str) -> None:
    (tmp_path / "documents.yaml").write_text(f"documents:\n- file: {named}\n", "utf-8")
    assert [(file.name, file.path) for file in find_files([tmp_path])] == [("a.md", tmp_path / "a.md")]


def test_a_link_out_of_the_folder_is_refused_and_one_within_it_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.md").write_text("# secret", "utf-8")
    (folder := tmp_path / "documents").mkdir()
    (folder / "a.md").write_text("# a", "utf-8")
    (folder / "b.md").symlink_to("a.md")
    assert [file.path.name for file in find_files([folder])] == ["a.md"]
    (folder / "c.md").symlink_to(tmp_path / "secret.md")
    with pytest.raises(ManifestError, match=r"c\.md lies outside the folder: copy the file into the folder"):
        find_files([folder])


def test_two_files_of_one_name_are_refused_because_they_would_be_one_document(tmp_path: Path) -> None:
    for folder in ("loans", "deposits"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "terms.md").write_text(f"# {folder}", "utf-8")
    with pytest.raises(ManifestError, match=r"are both named terms\.md: load a folder that contains both"):
        find_files([tmp_path / "loans", tmp_path / "deposits"])
    assert [file.name for file in find_files([tmp_path])] == ["deposits/terms.md", "loans/terms.md"]


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ("  title: Fees: 2026", "not valid YAML, line 3, column 14: mapping values are not allowed here"),
        ("  titel: Fees", "line 3: documents.0.titel: Extra inputs are not permitted"),
        ("- title: Fees", "line 3: documents.1.file: Field required"),
        ('- {"file": "b.md", "language": "de"}', "line 3: documents.1.language: Input should be 'ko' or 'en'"),
    ],
)
def test_an_invalid_manifest_is_refused_with_its_line(tmp_path: Path, entry: str, problem: str) -> None:
    (tmp_path / "documents.yaml").write_text(f"documents:\n- file: a.md\n{entry}\n", "utf-8")
    with pytest.raises(ManifestError, match=re.escape(problem)):
        find_files([tmp_path])
