"""The measure of masking tells what is left of an identifier, and what was masked for nothing."""

import json
import unicodedata
from pathlib import Path

import pytest
from typer import Typer
from typer.testing import CliRunner

from evals.questions import (
    ComposedIdentifier,
    SpelledIdentifier,
    composed_identifiers,
    held_out_identifiers,
    spelled_identifiers,
)
from evals.safety.masking import (
    LabelledText,
    Span,
    composed_recall,
    false_masks,
    held_out_recall,
    is_hidden,
    is_masked,
    labelled_measures,
    main,
    recall,
)
from knowledge.screening import IdentifierKind


def sentence(text: str, phone: str) -> SpelledIdentifier:
    start, kind = text.index(phone), IdentifierKind.PHONE
    return SpelledIdentifier(text=text, kind=kind, spelling="hyphens", start=start, end=start + len(phone))


def test_an_identifier_of_which_a_piece_is_left_is_not_masked() -> None:
    assert is_masked(sentence("제 번호 010-1234-5678번", "010-1234-5678"))
    assert not is_masked(sentence("제 번호 X010-1234-5678번", "X010-1234-5678"))
    shares, missed = recall([sentence("a 010-1234-5678", "010-1234-5678"), sentence("a 12", "12")])
    assert (shares["recall"], shares["recall_phone"], [sentence.text for sentence in missed]) == (0.5, 0.5, ["a 12"])


def test_the_made_up_identifiers_are_the_same_each_time_and_stand_where_they_say() -> None:
    first = list(spelled_identifiers(2))
    assert first == list(spelled_identifiers(2))
    assert {sentence.kind for sentence in first} == set(IdentifierKind) - {IdentifierKind.SECRET}
    assert all(sentence.text[sentence.start : sentence.end].strip() for sentence in first)


def halves(text: str, *pieces: str) -> ComposedIdentifier:
    spans = tuple((text.index(piece), text.index(piece) + len(piece)) for piece in pieces)
    return ComposedIdentifier(
        text=text, kind=IdentifierKind.RESIDENT_NUMBER, digits="ASCII", link="halves named", pieces=spans
    )


def test_a_composed_identifier_is_hidden_when_no_digit_of_any_piece_is_left() -> None:
    hidden, left = halves("앞은 880101 뒤는 1234567", "880101", "1234567"), halves("앞은 88 뒤는 1234", "88", "1234")
    assert (is_hidden(hidden), is_hidden(left)) == (True, False)
    shares, missed = composed_recall([hidden, left])
    assert (shares["composed_recall"], missed) == (0.5, [left])
    assert shares["composed_recall_lowest_kind"] == 0.5


def test_held_out_identifiers_are_the_same_each_time_and_hold_what_they_say() -> None:
    made = list(held_out_identifiers(40))
    assert made == list(held_out_identifiers(40))
    assert all(message.text[start:end].strip() for message in made for start, end in message.pieces)
    shares, missed = held_out_recall(made)
    assert shares["held_out"] == 7 * 40
    assert shares["held_out_recall"] == round(1 - len(missed) / len(made), 4)


def test_composed_identifiers_are_the_same_each_time_and_hold_what_they_say() -> None:
    made = list(composed_identifiers(1))
    assert made == list(composed_identifiers(1))
    assert {sentence.kind for sentence in made} == set(IdentifierKind) - {IdentifierKind.PASSPORT}
    ascii_only = [sentence for sentence in made if (sentence.digits, sentence.link) == ("ASCII", "hyphen")]
    for sentence in ascii_only:
        assert all(any(c.isdigit() for c in sentence.text[start:end]) for start, end in sentence.pieces)
    scripts = {unicodedata.name(c).rsplit(" DIGIT ")[0] for sentence in made for c in sentence.text if c.isdecimal()}
    assert len(scripts) > 40


def test_foreign_texts_are_counted_and_what_is_masked_is_listed(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    lines = ["call 010-1234-5678", "no number here"]
    (tmp_path / "set" / "corpus.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in lines), "utf-8")
    app = Typer()
    app.command()(main)
    result = CliRunner().invoke(app, ["--foreign", str(tmp_path), "--count", "1"])
    measured = json.loads(result.stdout.splitlines()[-1])
    assert (measured["foreign_texts"], measured["foreign_masked"], measured["foreign_masks"]) == (2, 1, 1)
    assert "010-1234-5678" in result.output


def test_only_labels_that_are_masked_count() -> None:
    spans = (
        Span(entity_type="PERSON", start_position=0, end_position=3),
        Span(entity_type="PHONE_NUMBER", start_position=4, end_position=17),
    )
    measured = labelled_measures([LabelledText(full_text="Lee 010-1234-5678, a@b.co", spans=spans)])
    assert (measured["labelled_recall"], measured["labelled_precision"]) == (1.0, 0.5)


def test_a_question_that_is_masked_for_nothing_is_named() -> None:
    assert false_masks(["How do I pay?", "call 010-1234-5678"]) == ["call 010-1234-5678"]


@pytest.mark.parametrize(("question", "status"), [("How do I pay?", 0), ("call 010-1234-5678", 1)])
def test_the_command_fails_below_its_bound(tmp_path: Path, question: str, status: int) -> None:
    (tmp_path / "train.csv").write_text(f"text,category\n{question},pay\n", "utf-8")
    app = Typer()
    app.command()(main)
    result = CliRunner().invoke(app, ["--clean", str(tmp_path), "--count", "2"])
    assert result.exit_code == status
    assert json.loads(result.stdout.splitlines()[-1])["clean_questions"] == 1
