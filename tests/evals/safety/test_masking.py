"""The measure of masking tells what is left of an identifier, and what was masked for nothing."""

import json
from pathlib import Path

import pytest
from typer import Typer
from typer.testing import CliRunner

from evals.questions import IDENTIFIER_SETS, MadeIdentifier, read_identifiers
from evals.safety.masking import is_masked, main, recall

app = Typer()
app.command()(main)


def made(text: str, *pieces: str) -> MadeIdentifier:
    spans = tuple((text.index(piece), text.index(piece) + len(piece)) for piece in pieces)
    return MadeIdentifier(kind="resident_number", form="halves", text=text, pieces=spans)


def test_an_identifier_of_which_a_piece_is_left_is_not_masked() -> None:
    hidden, left = made("앞은 880101 뒤는 1234567", "880101", "1234567"), made("앞은 88 뒤는 1234", "88", "1234")
    assert (is_masked(hidden), is_masked(left)) == (True, False)
    figures, missed = recall("set", [hidden, left])
    assert (figures["set_recall"], figures["set_recall_resident_number"], missed) == (0.5, 0.5, [left])


@pytest.mark.parametrize("name", IDENTIFIER_SETS)
def test_the_pieces_of_a_made_identifier_stand_in_its_text(name: str) -> None:
    identifiers = read_identifiers(name)
    assert len({one.kind for one in identifiers}) >= 7
    assert all(one.pieces for one in identifiers)
    assert all(one.text[start:end].strip() for one in identifiers for start, end in one.pieces)


def test_foreign_texts_are_counted_and_what_is_masked_is_listed(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    lines = ["call 010-1234-5678", "no number here"]
    (tmp_path / "set" / "corpus.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in lines), "utf-8")
    result = CliRunner().invoke(app, ["--foreign", str(tmp_path)])
    measured = json.loads(result.stdout.splitlines()[-1])
    assert (measured["foreign_texts"], measured["foreign_masked"], measured["foreign_masks"]) == (2, 1, 1)
    assert "010-1234-5678" in result.output


@pytest.mark.parametrize(("question", "status"), [("How do I pay?", 0), ("call 010-1234-5678", 1)])
def test_a_question_that_is_masked_for_nothing_is_named_and_fails_the_command(
    tmp_path: Path, question: str, status: int
) -> None:
    (tmp_path / "train.csv").write_text(f"text,category\n{question},pay\n", "utf-8")
    result = CliRunner().invoke(app, ["--clean", str(tmp_path)])
    assert result.exit_code == status
    assert (f"masked for nothing: {question}" in result.output) is bool(status)
