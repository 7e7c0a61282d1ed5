from hypothesis import given
from hypothesis import strategies as st

from ingest.review.changes import Change, changes
from knowledge.passage import Passage

HEAD = "| 기간 | 금리 |\n| --- | --- |\n"


def passages(*texts: str) -> list[Passage]:
    return [
        Passage(
            tenant="t", document_id="d", version=1, n=n, title="예금", section="금리", page=1, text=text, language="ko",
            product=None, readers=("customers",), effective_from=None,
        )
        for n, text in enumerate(texts, start=1)
    ]  # fmt: skip


def found(old: list[Passage], new: list[Passage]) -> list[tuple[int, str, str]]:
    """Return what was removed and what came in its place, with the passage's number."""
    texts = {passage.n: passage.text for passage in new}
    return [
        (change.n, change.removed, texts[change.n][change.start : change.end]) for change in changes(old, new)
    ]  # fmt: skip


def before(new: list[Passage], made: list[Change]) -> str:
    """Return the text of new passages with the changes taken back, without white space."""
    taken_back = ""
    for passage in new:
        at = 0
        for change in made:
            if change.n == passage.n:
                assert at <= change.start <= change.end <= len(passage.text)
                taken_back += passage.text[at : change.start] + change.removed
                at = change.end
        taken_back += passage.text[at:]
    return "".join(taken_back.split())


def test_a_changed_rate_is_the_number_that_changed() -> None:
    old = passages("가\n나", "  12개월 금리는 연 2.35%입니다.\n라")
    new = passages("가\n나", "  12개월 금리는 연 2.40%입니다.\n라")
    assert found(old, new) == [(2, "2.35%", "2.40%")]


def test_another_sentence_is_changed_as_a_whole() -> None:
    old, new = passages("만기 전에 해지하면 이자가 적습니다."), passages("The fee is 5,000 won.")
    assert found(old, new) == [(1, old[0].text, new[0].text)]


def test_rates_that_changed_places_between_two_tables_are_changes() -> None:
    first, second = f"정기예금\n\n목돈을 맡깁니다.\n\n{HEAD}", f"자유적금\n\n매달 맡깁니다.\n\n{HEAD}"
    old = passages(f"{first}| 12 | 3.1 |", f"{second}| 12 | 2.8 |")
    new = passages(f"{first}| 12 | 2.8 |", f"{second}| 12 | 3.1 |")
    assert found(old, new) == [(1, "3.1", "2.8"), (2, "2.8", "3.1")]


def test_a_removed_row_is_not_a_changed_rate() -> None:
    old = passages(f"{HEAD}| 6개월 | 연 2.10% |\n| 12개월 | 연 2.35% |\n| 24개월 | 연 2.50% |")
    new = passages(f"{HEAD}| 12개월 | 연 2.75% |\n| 24개월 | 연 2.50% |")
    assert found(old, new) == [(1, "| 6개월 | 연 2.10% |", ""), (1, "2.35%", "2.75%")]
    assert found(new, old) == [(1, "", "| 6개월 | 연 2.10% |"), (1, "2.75%", "2.35%")]


def test_removed_text_is_shown_before_the_next_line_or_at_the_end() -> None:
    assert found(passages("가", "나\n다"), passages("가", "다")) == [(2, "나", "")]
    (change,) = changes(passages("가", "나\n다"), passages("가", "나\n"))
    assert (change.n, change.start, change.end, change.removed) == (2, 1, 1, "다")


def test_a_table_that_is_cut_elsewhere_has_not_changed() -> None:
    rows = [f"| {n}개월 | {n}.5% |" for n in range(1, 9)]
    old = passages(HEAD + "\n".join(rows[:4]), HEAD + "\n".join(rows[4:]))
    new = passages(HEAD + "\n".join(rows[:5]), HEAD + "\n".join(rows[5:]))
    assert found(old, new) == []


texts = st.lists(st.text("가나 2.%\n", min_size=1, max_size=20).filter(str.strip), min_size=1, max_size=4)


@given(old=texts, new=texts)
def test_undoing_the_changes_gives_the_old_text(old: list[str], new: list[str]) -> None:
    made = list(changes(passages(*old), passages(*new)))
    assert before(passages(*new), made) == "".join("".join(old).split())
    assert bool(made) == (lines(old) != lines(new))


def lines(of: list[str]) -> list[str]:
    return [line.strip() for text in of for line in text.split("\n") if line.strip()]
