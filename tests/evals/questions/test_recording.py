"""A recording that is stopped goes on where it was; one of something else begins anew."""

from pathlib import Path

import msgspec
import pytest

from chatbot.tokenizer import Tokenizer
from evals.quality import Recorder, checked
from evals.questions.recording import Made, Part, Shown, Spoken, read_recording, write_recording
from knowledge.index import Index
from llm_server.scripted import Behaviour
from tests.chatbot.models.scripted_pool import serve, tokenizer
from tests.chatbot.proof.test_audit_replay import DEPOSIT, index, terms

__all__ = ["index", "terms", "tokenizer"]

MADE = Made(dataset="hanbit", model="m", profile="cpu", prompt_version="1", documents="2")
PASSAGES = {
    shown.key: shown
    for shown in (
        Shown(document_id="fees", version=1, n=n, title="수수료", section="", text=f"제{n}조", language="ko")
        for n in (1, 2)
    )
}
FIRST = Spoken(
    id="q1", passages=(("fees", 1, 1), ("fees", 1, 2)), probes=(0.9,), said="수수료는 500원입니다.",
    repair=(("제1조", 0.75), ("제2조", 0.25)),
)  # fmt: skip
SECOND = Spoken(id="q2", passages=(("fees", 1, 2),), probes=(0.1,))


def test_a_stopped_recording_goes_on_with_what_it_has(tmp_path: Path) -> None:
    path = tmp_path / "recorded.jsonl.part"
    Part(path, MADE).keep(FIRST, PASSAGES)
    with path.open("ab") as file:
        file.write(msgspec.json.encode(SECOND)[:20])  # killed while it wrote
    part = Part(path, MADE)
    assert list(part.answers) == ["q1"]
    part.keep(SECOND, PASSAGES)
    again = Part(path, MADE).whole(["q2", "q1"])
    assert (again.answers, again.passages) == ((SECOND, FIRST), PASSAGES)
    write_recording(again, tmp_path / "recorded.jsonl")
    assert read_recording(tmp_path / "recorded.jsonl") == again


@pytest.mark.anyio
async def test_what_the_model_chooses_where_all_was_withheld_is_recorded_with_the_quotes(
    tokenizer: Tokenizer, index: Index
) -> None:
    question = "정기예금의 기본 금리와 중도해지 금리는 얼마인가요?"
    async with serve(tokenizer, [Behaviour(chooses=(0.2, 0.6))]) as served:
        recorder = Recorder(served.models, index)
        choices = [
            await recorder.choice(checked(question, [DEPOSIT], said).quotes(""), [DEPOSIT], question, before=())
            for said in ("정기예금의 기본 금리는 연 7.7%입니다.", "정기예금의 기본 금리는 연 3.1%입니다.")
        ]
        assert served.started() == 1
    withheld, shown = choices
    assert [share for _, share in withheld] == pytest.approx([0.25, 0.75], abs=0.01)
    assert all(quote in DEPOSIT.text for quote, _ in withheld)
    assert shown == ()


@pytest.mark.parametrize("changed", [{"model": "n"}, {"prompt_version": "3"}, {"documents": "4"}])
def test_what_was_said_to_something_else_is_not_kept(tmp_path: Path, changed: dict[str, str]) -> None:
    path = tmp_path / "recorded.jsonl.part"
    Part(path, MADE).keep(FIRST, PASSAGES)
    assert Part(path, msgspec.structs.replace(MADE, **changed)).answers == {}
    assert Part(path, MADE).answers == {}, "the file is the other one's now"
