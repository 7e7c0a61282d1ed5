import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatbot.grounding.sentences import SentenceSplitter, passage_sentences, split_sentences

ENDS = ["안녕하세요.", "합니다.", "되나요?", "네!", "…", "...", ".", "”", ")", "**"]
NUMBERS = ["연 2.5%", "2026. 1. 1.", "1.", "12.", "10,000원", "3.14", "가.", "No."]
WORDS = ["e.g.", "Mr.", "a.m.", "Rate", "rate", "금리", "(단,", "x", "- ", "| a | b |", " ", "\n", "\n\n"]
PARTS = st.sampled_from([*ENDS, *NUMBERS, *WORDS])
TEXTS = st.one_of(st.lists(PARTS, max_size=25).map("".join), st.text(max_size=60))


def in_feeds(text: str, sizes: list[int]) -> list[str]:
    splitter, pieces, at = SentenceSplitter(), [], 0
    for size in [*sizes, len(text)]:
        pieces += splitter.feed(text[at : at + size])
        at += size
    return [*pieces, *splitter.close()]


@settings(deadline=None)
@given(TEXTS, st.lists(st.integers(1, 6), max_size=40))
def test_the_pieces_are_the_text_and_the_cut_into_feeds_changes_nothing(text: str, sizes: list[int]) -> None:
    assert "".join(split_sentences(text)) == text
    assert in_feeds(text, sizes) == split_sentences(text)


@settings(deadline=None)
@given(TEXTS)
def test_settled_text_stays_in_its_sentence(text: str) -> None:
    splitter, settled = SentenceSplitter(), ""
    for char in text:
        for piece in splitter.feed(char):
            assert piece.startswith(settled)
            settled = ""
        settled = splitter.pending[: splitter.settled]
    assert "".join(splitter.close()).startswith(settled)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("금리는 연 2.5%입니다. 한도는 없습니다.", ["금리는 연 2.5%입니다.", " 한도는 없습니다."]),
        ("가입됩니다.해지는 언제든지 됩니다.", ["가입됩니다.", "해지는 언제든지 됩니다."]),
        ("될까요?네, 됩니다!", ["될까요?", "네, 됩니다!"]),
        ("좋아요. 그럼요.(단, 개인만 돼요.)", ["좋아요.", " 그럼요.", "(단, 개인만 돼요.)"]),
        ("2026. 1. 1. 부터 시행합니다. 끝", ["2026. 1. 1. 부터 시행합니다.", " 끝"]),
        ("2026. 12. 31.까지입니다.", ["2026. 12. 31.까지입니다."]),
        ("The rate is 2.5%. It is fixed.", ["The rate is 2.5%.", " It is fixed."]),
        ("The fee is 500. You pay once.", ["The fee is 500.", " You pay once."]),
        ("Ask Mr. Kim, e.g. at 9 a.m. or later. Thanks.", ["Ask Mr. Kim, e.g. at 9 a.m. or later.", " Thanks."]),
        ("We close at 4 p.m. Come early.", ["We close at 4 p.m.", " Come early."]),
        ("From Jan. 5, 2026. Then it ends.", ["From Jan. 5, 2026.", " Then it ends."]),
        ("No. You cannot.", ["No.", " You cannot."]), ("See No. 5 of the terms.", ["See No. 5 of the terms."]),
        ("www.hanbit.example 에서 합니다.", ["www.hanbit.example 에서 합니다."]),
        ('그는 "됩니다." 라고 했다.', ['그는 "됩니다."', " 라고 했다."]),
        ("조건:\n1. 개인\n2. 법인", ["조건:", "\n1. 개인", "\n2. 법인"]), ("- 하나\n- 둘", ["- 하나", "\n- 둘"]),
        ("가. 첫째\n나. 둘째", ["가. 첫째", "\n나. 둘째"]),
        ("| a | b |\n|---|---|\n| 1.5% | 2. |", ["| a | b |", "\n|---|---|", "\n| 1.5% | 2. |"]),
        ("잠시만요... 됩니다.", ["잠시만요...", " 됩니다."]),
    ],
)  # fmt: skip
def test_sentences_end_where_a_reader_ends_them(text: str, pieces: list[str]) -> None:
    assert split_sentences(text) == pieces


def test_a_sentence_is_complete_as_soon_as_the_next_blank_is_seen() -> None:
    splitter = SentenceSplitter()
    assert splitter.feed("됩니다.") == []
    assert splitter.feed(" ") == ["됩니다."]


@settings(deadline=None)
@given(TEXTS)
def test_passage_sentences_are_verbatim(text: str) -> None:
    assert all(sentence in text and sentence == sentence.strip() for sentence in passage_sentences(text))


def test_a_line_that_a_pdf_wrapped_goes_on_in_the_next() -> None:
    text = "이 상품은 만 19세 이상의 개인이 영업점과 모바일에서\n가입할 수 있는 상품입니다.\n- 우대금리\n"
    text += "| a | b |\n| 1 | 2 |"
    assert passage_sentences(text) == [
        "이 상품은 만 19세 이상의 개인이 영업점과 모바일에서\n가입할 수 있는 상품입니다.",
        "- 우대금리",
        "| a | b |",
        "| 1 | 2 |",
    ]
