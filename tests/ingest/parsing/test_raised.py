"""Raised text does not become a part of the figure before it."""

import pytest

from ingest.parsing.raised import raised


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("1", "¹"), ("1)", "¹⁾"), ("(12)", "⁽¹²⁾"), ("[3]", "⁽³⁾"), ("-2", "⁻²"), (" 2 ", "²"), ("1,2", "¹,²"),
        ("a", "[a]"), ("주1", "[주1]"), ("[b]", "[b]"), ("*", "*"), ("®", "®"), ("th", "th"), ("", ""), ("¹", "¹"),
    ],
)  # fmt: skip
def test_raised_text_is_written_in_raised_characters_or_in_brackets(text: str, shown: str) -> None:
    assert raised(text) == shown
