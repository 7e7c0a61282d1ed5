"""The sample bank's dialogues are whole, and their known answers stand in its documents."""

import json
from collections import Counter

import pytest

from evals.questions.dialogue import read_dialogues
from evals.questions.sample import HANBIT
from evals.scorers import holds_answer
from tests.evals.questions.test_dataset import DOCUMENTS, entries, read_text

DIALOGUES = read_dialogues(HANBIT)
TURNS = {f"{dialogue.id}.{n}": turn for dialogue in DIALOGUES for n, turn in enumerate(dialogue.turns, 1)}
LEANS_ON_NOTHING = {"opening", "standalone", "statement", "topic_change"}


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    """Return the text of the newest version of each document by its id."""
    return {row["document_id"]: read_text(DOCUMENTS / row["file"]) for row in entries()}


def test_an_answerable_turn_has_answers_and_documents(texts: dict[str, str]) -> None:
    for dialogue in DIALOGUES:
        for turn in dialogue.turns:
            assert bool(turn.answers) != turn.unanswerable, turn
            assert bool(turn.documents) != turn.unanswerable, turn
            assert set(turn.documents) <= {name for name in texts if name.endswith(f"-{dialogue.language}")}, turn


def test_every_answer_is_in_its_documents(texts: dict[str, str]) -> None:
    missing = [
        name
        for name, turn in TURNS.items()
        if not turn.unanswerable and not any(answer in texts[doc] for answer in turn.answers for doc in turn.documents)
    ]
    assert missing == []
    wrong = [
        (name, doc)
        for name, turn in TURNS.items()
        for doc in turn.documents
        if not holds_answer(texts[doc], turn.answers)
    ]
    assert wrong == []


def test_no_question_gives_its_answer_away() -> None:
    assert [name for name, turn in TURNS.items() if holds_answer(turn.whole, turn.answers)] == []


def test_dependent_turns_are_written_out_and_no_question_repeats() -> None:
    assert [n for n, t in TURNS.items() if t.kind not in LEANS_ON_NOTHING and t.whole == t.text] == []
    assert [whole for whole, n in Counter(turn.whole for turn in TURNS.values()).items() if n > 1] == []
    golden = {json.loads(line)["text"] for line in (HANBIT / "queries.jsonl").read_text("utf-8").splitlines()}
    assert [name for name, turn in TURNS.items() if turn.whole in golden] == []
    assert [name for name, turn in TURNS.items() if turn.kind in LEANS_ON_NOTHING and turn.text in golden] == []
