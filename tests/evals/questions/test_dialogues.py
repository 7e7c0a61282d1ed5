"""The sample bank's dialogues are whole, and their known answers stand in its documents."""

import json
from collections import Counter
from pathlib import Path

import pytest
import yaml

from evals.questions.dialogue import read_dialogues
from evals.questions.sample import HANBIT, DatasetBroken
from evals.scorers import holds_answer
from tests.evals.questions.test_dataset import DOCUMENTS, Entry, read_text

DIALOGUES = read_dialogues(HANBIT)
TURNS = {f"{dialogue.id}.{n}": turn for dialogue in DIALOGUES for n, turn in enumerate(dialogue.turns, 1)}
FOLLOW_UPS = {
    "choice",
    "comparison",
    "condition",
    "correction",
    "ellipsis",
    "pronoun",
    "return",
    "standalone",
    "statement",
    "three_back",
    "topic_change",
}
LEANS_ON_NOTHING = {"opening", "standalone", "statement", "topic_change"}


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    """Return the text of the newest version of each document by its id."""
    manifest = yaml.safe_load((DOCUMENTS / "documents.yaml").read_text(encoding="utf-8"))
    entries = sorted(map(Entry.model_validate, manifest["documents"]), key=lambda entry: entry.effective_from)
    return {entry.document_id: read_text(DOCUMENTS / entry.file) for entry in entries}


def test_a_dialogue_has_an_id_of_its_own_and_four_to_six_turns_of_which_the_first_opens_it() -> None:
    assert len({dialogue.id for dialogue in DIALOGUES}) == len(DIALOGUES)
    for dialogue in DIALOGUES:
        assert 4 <= len(dialogue.turns) <= 6, dialogue.id
        assert [n for n, turn in enumerate(dialogue.turns) if turn.kind == "opening"] == [0], dialogue.id


@pytest.mark.parametrize("language", ["ko", "en"])
def test_every_kind_of_follow_up_is_there_often_enough_in_both_languages(language: str) -> None:
    own = [dialogue for dialogue in DIALOGUES if dialogue.language == language]
    assert len(own) >= {"ko": 36, "en": 28}[language]
    assert abs(sum(1 if dialogue.split == "dev" else -1 for dialogue in own)) <= len(own) // 10
    later = [turn for dialogue in own for turn in dialogue.turns[1:]]
    kinds = Counter(turn.kind for turn in later)
    assert set(kinds) == FOLLOW_UPS
    assert min(kinds.values()) >= 6, kinds
    assert 0.07 <= sum(turn.unanswerable for turn in later) / len(later) <= 0.13


def test_every_document_answers_a_turn(texts: dict[str, str]) -> None:
    assert {doc for turn in TURNS.values() for doc in turn.documents} == set(texts)


def test_a_return_comes_after_a_change_of_topic_and_three_back_has_three_turns_before_it() -> None:
    for dialogue in DIALOGUES:
        kinds = [turn.kind for turn in dialogue.turns]
        for n, kind in enumerate(kinds):
            assert kind != "return" or "topic_change" in kinds[:n], dialogue.id
            assert kind != "three_back" or n >= 3, dialogue.id


def test_a_turn_has_answers_and_documents_of_its_language_unless_it_is_unanswerable(texts: dict[str, str]) -> None:
    for dialogue in DIALOGUES:
        for turn in dialogue.turns:
            assert bool(turn.answers) != turn.unanswerable, turn
            assert bool(turn.documents) != turn.unanswerable, turn
            assert set(turn.documents) <= {name for name in texts if name.endswith(f"-{dialogue.language}")}, turn


def test_an_answer_stands_letter_for_letter_in_a_document_and_every_document_holds_one(texts: dict[str, str]) -> None:
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


def test_a_turn_that_leans_on_another_is_written_out_and_no_question_is_asked_twice() -> None:
    assert [n for n, t in TURNS.items() if t.kind not in LEANS_ON_NOTHING and t.whole == t.text] == []
    assert [whole for whole, n in Counter(turn.whole for turn in TURNS.values()).items() if n > 1] == []
    golden = {json.loads(line)["text"] for line in (HANBIT / "queries.jsonl").read_text("utf-8").splitlines()}
    assert [name for name, turn in TURNS.items() if turn.whole in golden] == []
    assert [name for name, turn in TURNS.items() if turn.kind in LEANS_ON_NOTHING and turn.text in golden] == []


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"id": "dk-01", "language": "ko", "split": "dev"}', "line 1: Object missing required field `turns`"),
        ('{"id": "dk-01", "language": "ko", "split": "all", "turns": []}', "line 1: Invalid enum value 'all'"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, line: str, says: str) -> None:
    (tmp_path / "dialogues.jsonl").write_text(line, encoding="utf-8")
    with pytest.raises(DatasetBroken, match=says):
        read_dialogues(tmp_path)
