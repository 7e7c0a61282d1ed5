"""A model's own citation markers are removed, however they are cut across feeds."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatbot.grounding.markers import MarkerFilter
from tests.chatbot.grounding.fed_streams import cuts


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("금리입니다 [1]. 다음", "금리입니다. 다음"), ("금리입니다.[1] 다음", "금리입니다. 다음"),
        ("금리입니다. [1][2] 다음", "금리입니다. 다음"), ("금리입니다 [1, 2] 다음", "금리입니다 다음"),
        ("금리【3】는", "금리는"), ("금리 (문서 1)는", "금리는"), ("금리[문장 2]", "금리"),
        ("금리 (출처: 문서 1)", "금리 (출처: 문서 1)"), ("금리 [문서 1, 문서 2]", "금리"),
        ("rate (source: 2) is", "rate is"), ("rate [Document 2] is", "rate is"), ("rate [^1] is", "rate is"),
        ("[1] 은행은", "은행은"), ("- [1] 은행은", "- 은행은"), ("가\n[2] 나", "가\n나"), ("(1) 하나", "(1) 하나"),
        ("[특판] 예금", "[특판] 예금"), ("배열 [2026] 년", "배열 [2026] 년"), ("끝 ", "끝 "), ("열린 [1", "열린 [1"),
    ],
)  # fmt: skip
def test_the_models_own_markers_are_removed(written: str, shown: str) -> None:
    markers = MarkerFilter()
    assert markers.feed(written) + markers.close() == shown
    markers = MarkerFilter()
    assert "".join(markers.feed(char) for char in written) + markers.close() == shown


MARKER_PARTS = [*"[]():a^", "1", "12", ", ", " ", "\n", "문서", "문", "sour", "source", "【2】", "[1]"]


@settings(deadline=None)
@given(st.lists(st.sampled_from(MARKER_PARTS), max_size=20).map("".join), st.lists(st.integers(1, 4), max_size=40))
def test_markers_cut_across_feeds_are_removed_alike(text: str, sizes: list[int]) -> None:
    whole, parts = MarkerFilter(), MarkerFilter()
    assert "".join(map(parts.feed, cuts(text, sizes))) + parts.close() == whole.feed(text) + whole.close()
