"""The measure of masking tells what is left of an identifier, and what was masked for nothing."""

import pytest

from evals.questions import IDENTIFIER_SETS, MadeIdentifier, read_identifiers
from evals.safety.masking import is_masked, recall


def made(text: str, *pieces: str) -> MadeIdentifier:
    spans = tuple((text.index(piece), text.index(piece) + len(piece)) for piece in pieces)
    return MadeIdentifier(kind="resident_number", form="halves", text=text, pieces=spans)


def test_a_partly_visible_identifier_is_not_masked() -> None:
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
