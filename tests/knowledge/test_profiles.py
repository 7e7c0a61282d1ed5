"""Profiles of machines: their deadlines and answer modes."""

from pathlib import Path

import pytest

from knowledge.profiles import PROFILES, AnswerMode, UnknownProfile, read_answer_mode, read_deadlines


def test_deadlines_follow_from_the_profile() -> None:
    assert read_deadlines("cpu").first_token(1600) == 10 + 3 * 1600 / 60
    assert read_deadlines("scripted").first_token(100_000) == 8
    answering = [
        read_deadlines(path.stem) for path in PROFILES.glob("*.yaml") if "deadlines:" in path.read_text("utf-8")
    ]
    assert len(answering) >= 11
    assert all(deadlines.between_tokens == 10 and deadlines.answer >= 60 for deadlines in answering)


def test_a_profile_says_whether_its_model_writes_or_quotes(tmp_path: Path) -> None:
    assert read_answer_mode("cpu") is AnswerMode.QUOTE
    assert read_answer_mode("scripted") is AnswerMode.WRITTEN
    wrong = tmp_path / "own.yaml"
    wrong.write_text("answer: sing\n", encoding="utf-8")
    with pytest.raises(UnknownProfile, match="'sing' is not a valid AnswerMode, only quote, written"):
        read_answer_mode(str(wrong))
