"""Dialogues are scored turn by turn, and one that was held is not held again."""

from pathlib import Path

import msgspec

from chatbot.events import RelatedPassage, Source
from evals.quality.dialogues import dialogue_run
from evals.questions import CustomerAnswer, Dataset, Dialogue, DialogueTurn

ROOT = Path(__file__).parents[3]
DATASET = Dataset(folder=ROOT / "evals" / "datasets" / "hanbit", samples=(), relevant={})


def turn(text: str, kind: str, *answers: str) -> DialogueTurn:
    return msgspec.convert(
        {
            "text": text,
            "kind": kind,
            "whole": f"정기예금 {text}",
            "answers": answers,
            "documents": ["deposit"] if answers else [],
            "unanswerable": not answers,
        },
        DialogueTurn,
    )


DIALOGUE = Dialogue(
    id="d",
    language="ko",
    split="dev",
    turns=(
        turn("금리는요?", "opening", "3%"),
        turn("한도는요?", "ellipsis", "5만원"),
        turn("우대금리는요?", "ellipsis", "0.3%"),
        turn("기간은요?", "ellipsis", "12개월"),
        turn("그럼 나이는요?", "condition", "19세"),
        turn("다른 은행은요?", "topic_change"),
    ),
)


def source(document_id: str) -> Source:
    return Source(
        n=1, document_id=document_id, version=1, title="", section="", page=None, effective_from=None, score=1
    )


def answered(n: int, text: str, reason: str = "stop", *, found: str = "deposit", related: str = "") -> CustomerAnswer:
    near = RelatedPassage(n=1, document_id=related, version=1, title="", section="", page=None, quote="")
    return CustomerAnswer(
        id=DIALOGUE.turn_id(n),
        text=text,
        finish_reason=reason,
        grounded=reason == "stop",
        sources=(source(found),),
        citations=(),
        cited={},
        notices=(),
        first_token_seconds=2.0 + n,
        seconds=9.0,
        prompt_tokens=1,
        answer_tokens=1,
        related=(near,) if related else (),
    )


def test_a_turn_is_right_wrong_beside_or_refused() -> None:
    answers = [
        answered(0, "연 3%입니다."),
        answered(1, "한도는 5만원입니다."),
        answered(2, "정기예금 우대금리는 0.5%입니다."),
        answered(3, "청년적금은 19세부터 가입합니다.", found="other"),
        answered(4, "", "refused", related="deposit"),
        answered(5, "", "refused"),
    ]
    run = dialogue_run(DATASET, (DIALOGUE,), answers, contact="")
    figures = {
        "dialogues": 1,
        "turns": 6,
        "follow_ups": 4,
        "follow_ups_right": 0.25,
        "follow_ups_wrong": 0.25,
        "follow_ups_beside": 0.25,
        "follow_ups_refused": 0.25,
        "follow_ups_found": 0.75,
        "follow_ups_first_words_seconds_median": 4.0,
        "openings_right": 1.0,
        "related_right": 1.0,
        "refused_rightly": 1.0,
        "errors": 0,
    }
    assert {name: run.measures[name] for name in figures} == figures
    assert [row.id for row in run.rows] == ["d/0", "d/1", "d/2", "d/3", "d/4", "d/5"]
