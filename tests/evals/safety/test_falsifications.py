"""Falsified sentences have their passages, and a changed number is counted as shown or not."""

from evals.questions import HANBIT, read_falsifications, read_recording
from evals.safety.falsifications import is_shown, shown_text


def test_every_falsification_has_its_passages_and_differs_from_the_true_sentence() -> None:
    passages = read_recording(HANBIT / "recorded.jsonl").passages
    falsifications = read_falsifications()
    assert sum(len(one.false) for one in falsifications) >= 1000
    for one in falsifications:
        assert one.true in passages[one.passages[0]].text
        assert all(key in passages for key in one.passages)
        assert one.true not in one.false.values()


def test_a_true_sentence_is_shown_and_a_changed_number_is_not() -> None:
    passages = read_recording(HANBIT / "recorded.jsonl").passages
    one = next(one for one in read_falsifications() if "other digits" in one.false)
    sources = [passages[key].passage() for key in one.passages]
    assert shown_text(one.true, sources)
    assert is_shown(one.true, sources)
    assert not is_shown(one.false["other digits"], sources)
