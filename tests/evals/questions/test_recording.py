"""An interrupted recording continues where it ended; another recording begins anew."""

from pathlib import Path

import msgspec
import pytest

from evals.questions.recording import (
    PartialRecording,
    RecordedAnswer,
    RecordedPassage,
    RecordingHeader,
    read_recording,
    write_recording,
)

HEADER = RecordingHeader(dataset="hanbit", model="m", profile="cpu", prompt_version="1", documents="2")
PASSAGES = {
    recorded.key: recorded
    for recorded in (
        RecordedPassage(document_id="fees", version=1, n=n, title="수수료", section="", text=f"제{n}조", language="ko")
        for n in (1, 2)
    )
}
FIRST = RecordedAnswer(
    id="q1", passages=(("fees", 1, 1), ("fees", 1, 2)), probes=(0.9,), model_text="수수료는 500원입니다.",
    scores=(3.1, 2.9), choices=((0.75, 0.25), (0.5, 0.5)),
)  # fmt: skip
SECOND = RecordedAnswer(id="q2", passages=(("fees", 1, 2),), probes=(0.1,))


def test_a_stopped_recording_continues_after_its_last_answer(tmp_path: Path) -> None:
    path = tmp_path / "recorded.jsonl.part"
    PartialRecording(path, HEADER).append(FIRST, PASSAGES)
    with path.open("ab") as file:
        file.write(msgspec.json.encode(SECOND)[:20])  # killed while it wrote
    recording = PartialRecording(path, HEADER)
    assert list(recording.answers) == ["q1"]
    recording.append(SECOND, PASSAGES)
    whole = PartialRecording(path, HEADER).recording_of(["q2", "q1"])
    assert (whole.answers, whole.passages) == ((SECOND, FIRST), PASSAGES)
    write_recording(whole, tmp_path / "recorded.jsonl")
    assert read_recording(tmp_path / "recorded.jsonl") == whole


@pytest.mark.parametrize("changed", [{"model": "n"}, {"prompt_version": "3"}, {"documents": "4"}])
def test_answers_of_another_recording_are_not_kept(tmp_path: Path, changed: dict[str, str]) -> None:
    path = tmp_path / "recorded.jsonl.part"
    PartialRecording(path, HEADER).append(FIRST, PASSAGES)
    assert PartialRecording(path, msgspec.structs.replace(HEADER, **changed)).answers == {}
    assert PartialRecording(path, HEADER).answers == {}, "the file is the other recording's now"
