from pathlib import Path

import pytest

from ingest.bulk import find_files


@pytest.mark.parametrize("named", ["a.md", "./a.md"])
def test_a_file_is_named_without_the_folder_that_its_manifest_stands_in(tmp_path: Path, named: str) -> None:
    (tmp_path / "documents.yaml").write_text(f"documents:\n- file: {named}\n", "utf-8")
    assert [(file.name, file.path) for file in find_files([tmp_path])] == [("a.md", tmp_path / "a.md")]
