"""SQL and the originals are the truth: put into an empty place, they bring the whole index back."""

import re
import shutil
import sqlite3
from pathlib import Path

from tests.ingest import samples
from tests.ingest.commands import run


def test_sql_and_originals_in_an_empty_place_bring_every_passage_back(weights: Path, tmp_path: Path) -> None:
    documents, data, restored = tmp_path / "documents", tmp_path / "data", tmp_path / "restored"
    documents.mkdir()
    for n in range(3):
        (documents / f"{n}.md").write_text(samples.MARKDOWN.replace("2.35", f"3.{n}"), "utf-8")
    code, output = run(weights, data, "load", str(documents), "--approved-by", "somebody else")
    assert code == 0, output
    restored.mkdir()
    with sqlite3.connect(data / "bank.db") as live, sqlite3.connect(restored / "bank.db") as copy:
        live.backup(copy)
    shutil.copytree(data / "blobs", restored / "blobs")
    code, output = run(weights, restored, "rebuild")
    assert code == 0, output
    assert re.search(r"\b3 of 3 versions written again", output), output
    code, output = run(weights, restored, "rebuild")
    assert re.search(r"\b0 of 3 versions written again", output), output
