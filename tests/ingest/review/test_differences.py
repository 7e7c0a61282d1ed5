from hypothesis import given
from hypothesis import strategies as st

from ingest.review.differences import CONTEXT, MOST_PAIRED, DiffLine, Kind, differences, lines_of, truncated
from knowledge.passage import Passage


def text(line: DiffLine) -> str:
    return "".join(piece.text for piece in line.pieces)


def changed(line: DiffLine) -> list[str]:
    return [piece.text for piece in line.pieces if piece.changed]


def passage(n: int, section: str, body: str) -> Passage:
    return Passage(
        tenant="t", document_id="d", version=1, n=n, title="예금", section=section, page=1, text=body, language="ko",
        product=None, readers=("customers",), effective_from=None,
    )  # fmt: skip


def test_a_changed_rate_is_shown_as_the_number_that_changed_between_its_neighbours() -> None:
    old = ["가", "나", "다", "12개월 금리는 연 2.35%입니다.", "라", "마", "바"]
    new = [line.replace("2.35", "2.40") for line in old]
    (hunk,) = differences(old, new)
    assert [line.kind for line in hunk] == [
        *[Kind.SAME] * CONTEXT,
        Kind.REMOVED,
        Kind.ADDED,
        *[Kind.SAME] * CONTEXT,
    ]
    assert [changed(line) for line in hunk if line.kind is not Kind.SAME] == [["2.35%"], ["2.40%"]]


def test_another_sentence_is_changed_as_a_whole() -> None:
    (hunk,) = differences(["만기 전에 해지하면 이자가 적습니다."], ["The fee is 5,000 won."])
    assert [changed(line) for line in hunk] == [[text(line)] for line in hunk]


def test_where_very_many_lines_on_end_changed_their_words_are_not_compared() -> None:
    old = [f"제{n}조의 금리는 연 2.35%입니다." for n in range(MOST_PAIRED + 1)]
    (hunk,) = differences(old, [line.replace("2.35", "2.40") for line in old])
    assert all(changed(line) == [text(line)] for line in hunk)


def test_more_lines_than_are_shown_are_cut_and_said_so() -> None:
    old = [f"{n}" for n in range(100)]
    hunks, more = truncated(differences(old, [f"{n}." if n in (10, 90) else f"{n}" for n in range(100)]), 6)
    assert (sum(map(len, hunks)), more) == (6, True)
    assert truncated(differences(old, old), 6) == ([], False)


def test_the_text_of_passages_has_each_heading_once_and_no_blank_lines() -> None:
    passages = [passage(1, "금리", "한 줄\n\n두 줄 "), passage(2, "금리", "세 줄"), passage(3, "수수료", "면제")]
    assert lines_of(passages) == ["금리", "한 줄", "두 줄", "세 줄", "수수료", "면제"]


lines = st.lists(st.text("가나 2.%\n", max_size=12).filter(lambda line: "\n" not in line), max_size=12)


@given(old=lines, new=lines)
def test_what_is_shown_is_what_both_say(old: list[str], new: list[str]) -> None:
    hunks = list(differences(old, new))
    assert bool(hunks) == (old != new)
    for kind, whole in ((Kind.REMOVED, old), (Kind.ADDED, new)):
        shown = [text(line) for hunk in hunks for line in hunk if line.kind in (kind, Kind.SAME)]
        rest = iter(whole)
        assert all(any(line == other for other in rest) for line in shown), "in order, and nothing made up"
    unchanged = [line for hunk in hunks for line in hunk if line.kind is Kind.SAME]
    assert not any(changed(line) for line in unchanged)
