"""However the model's text is cut into pieces, customers get the same events: a successor may cut it otherwise."""

import json
import random
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from chatbot.grounding.stream import GroundingMode, GroundingStream
from evals.sample_bank import sample_banks
from tests.chatbot.grounding.fed_streams import QUESTION, cuts, events_of, merged, passage

DATASET = Path(__file__).parents[3] / "evals" / "datasets" / "hanbit"
BEFORE = [
    "오후 ",
    "오전 ",
    "매월 ",
    "약 ",
    "최대 ",
    "연 ",
    "하루 ",
    "USD ",
    "KRW ",
    "₩",
    "from ",
    "between ",
    "2026년 ",
    "금 ",
]
AFTER = ["시", "시 30분", "일", "개월", "만원", " 만 원", "%", "%p", " won", "회"]


def strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from strings(part)


@cache
def texts() -> tuple[str, ...]:
    """Return the paragraphs of the documents, the questions and the recorded answers."""
    found: list[str] = []
    for path in sorted(DATASET.rglob("*")):
        if path.suffix == ".md":
            found += path.read_text("utf-8").split("\n\n")
        elif path.suffix == ".jsonl":
            found += [text for line in path.read_text("utf-8").splitlines() for text in strings(json.loads(line))]
    return tuple(dict.fromkeys(text for text in found if 20 < len(text) < 600))


def with_other_numbers(text: str, chance: random.Random) -> str:
    """Return the text with numbers that no source states, and with what may stand before and after one."""

    def other(number: re.Match[str]) -> str:
        digits = "".join(chance.choice("0123456789") for _ in number[0]) if chance.random() < 0.6 else number[0]
        before = chance.choice(BEFORE) if chance.random() < 0.4 else ""
        return before + digits + (chance.choice(AFTER) if chance.random() < 0.3 else "")

    return re.sub(r"\d+", other, text)


@pytest.mark.parametrize("grounding", list(GroundingMode))
@pytest.mark.parametrize("seed", range(120))
def test_any_cut_of_any_text_gives_the_same_events(grounding: GroundingMode, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311  a test's dice
    text = with_other_numbers(chance.choice(texts()), chance)
    sources = [passage("a", "t", chance.choice(texts())), passage("b", "t", text[:300])]

    def checks() -> GroundingStream:
        return GroundingStream(
            sources, grounding=grounding, language="ko", question=QUESTION, bank=sample_banks().first
        )

    whole = merged(events_of(checks(), [text]))
    by_character = list(cuts(text, [1] * len(text)))
    in_pieces = list(cuts(text, [chance.randint(1, 8) for _ in text]))
    assert merged(events_of(checks(), by_character)) == whole, text
    assert merged(events_of(checks(), in_pieces)) == whole, text


def test_what_stands_before_a_number_is_shown_alike() -> None:
    sources = [passage("a", "영업 시간", "영업점은 오전 9시에 엽니다.")]
    shown = set()
    for text in (["영업점은 오후 8시에 엽니다."], [*"영업점은 오후 8시에 엽니다."]):
        checks = GroundingStream(sources, grounding=GroundingMode.NUMBERS, language="ko", question=QUESTION)
        events_of(checks, text)
        shown.add(checks.text)
    assert shown == {"영업점은 오후…"}
