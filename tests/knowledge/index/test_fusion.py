import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowledge.index.fusion import balanced, fuse

SCORES = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 500).map(lambda tenth: tenth / 10), max_size=8)


def order(dense: dict[str, float], terms: dict[str, float], *, weight: float = 0.5, candidates: int = 100) -> str:
    return "".join(one.point_id for one in fuse(dense, terms, weight=weight, candidates=candidates))


def test_a_clear_favourite_beats_a_mild_one() -> None:
    dense = {"a": 0.81, "b": 0.80, "c": 0.79}
    terms = {"b": 20.0, "a": 2.0, "c": 1.0}
    assert order(dense, terms)[0] == "b"


def test_the_weight_decides_between_equally_clear_favourites() -> None:
    dense, terms = {"a": 0.9, "b": 0.8}, {"b": 9.0, "a": 8.0}
    assert order(dense, terms, weight=0.7) == "ab"
    assert order(dense, terms, weight=0.3) == "ba"


def test_a_candidate_missing_in_a_full_half_gets_its_lowest_score() -> None:
    cut = fuse({"a": 0.9, "b": 0.8, "c": 0.7}, {"a": 10.0, "b": 9.0}, weight=0.5, candidates=2)
    by_id = {one.point_id: one for one in cut}
    assert by_id["c"].terms is None
    exhausted = fuse({"a": 0.9, "b": 0.8, "c": 0.7}, {"a": 10.0, "b": 9.0}, weight=0.5, candidates=3)
    assert next(one for one in exhausted if one.point_id == "c").terms == 0.0


@given(SCORES, SCORES)
def test_every_candidate_is_there_once_in_falling_order(dense: dict[str, float], terms: dict[str, float]) -> None:
    fused = fuse(dense, terms, weight=0.4, candidates=100)
    assert sorted(one.point_id for one in fused) == sorted(dense.keys() | terms.keys())
    assert [one.score for one in fused] == sorted((one.score for one in fused), reverse=True)


@given(SCORES, st.floats(0, 1))
def test_a_half_alone_keeps_its_own_order(dense: dict[str, float], weight: float) -> None:
    fused = fuse(dense, {}, weight=max(weight, 0.01), candidates=100)
    assert [dense[one.point_id] for one in fused] == pytest.approx(sorted(dense.values(), reverse=True))


def test_scores_of_a_more_distant_language_are_lifted() -> None:
    own, other = {"a": 0.90, "b": 0.86}, {"c": 0.87, "d": 0.81}
    assert list(balanced([own, other], share=0, candidates=4)) == ["a", "c", "b", "d"]
    lifted = balanced([own, other], share=1, candidates=3)
    assert list(lifted) == ["c", "a", "b"]
    assert lifted["c"] == pytest.approx(0.91)
    assert balanced([own, {}], share=1, candidates=4) == own
