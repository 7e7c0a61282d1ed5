"""What a model thinks is no text of its answer, however it opens and closes it and wherever its output is cut."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatbot.models.endpoint import Capabilities, GenerationRequest, Piece, Sampling
from chatbot.models.generation import Delta, Generation, read_output
from chatbot.models.thinking import TAGS, ThinkingFilter, opens_thinking
from tests.chatbot.models.scripted_pool import CHAT


def answer_in(text: str, *, sizes: Sequence[int] = (), opened: bool = False) -> str:
    """Return what a customer would read of a model's output, which arrives in pieces of so many characters."""
    filtered, answer, at = ThinkingFilter(begins_in_thinking=opened), "", 0
    for size in [*(sizes or [1] * len(text)), len(text)]:
        answer += filtered.feed(text[at : at + size])
        at += size
    return answer + filtered.close()


@pytest.mark.parametrize(
    ("output", "opened", "answer"),
    [
        ("연 0.5%입니다.", False, "연 0.5%입니다."),
        ("<think>\n먼저 표를 보자.\n</think>\n\n연 0.5%입니다.", False, "연 0.5%입니다."),
        ("먼저 표를 보자.\n</think>\n\n연 0.5%입니다.", True, "연 0.5%입니다."),
        ("<think>\n먼저 표를 보자.</think>연 0.5%입니다.", True, "연 0.5%입니다."),
        ("<think>a</think>하나 <think>b</think>둘", False, "하나 둘"),
        ("<think>a", False, ""),
        ("a", True, ""),
        ("<think>a</think>\n\n", False, ""),
        ("하나</think>둘", False, "하나둘"),
        ("a < b, <thin> [1] <b>", False, "a < b, <thin> [1] <b>"),
        ("답 <thi", False, "답 <thi"),
        ("<|channel|>analysis<|message|>생각<|channel|>final<|message|>답", False, "답"),
    ],
)
def test_only_text_outside_of_every_block_is_the_answer(output: str, answer: str, *, opened: bool) -> None:
    assert answer_in(output, opened=opened) == answer


@given(
    st.lists(st.sampled_from(["<think>", "</think>", "<thi", "답 ", "<", "\n", "[THINK]x[/THINK]"]), max_size=8),
    st.lists(st.integers(1, 9), max_size=12),
    st.booleans(),
)
def test_it_makes_no_difference_where_the_output_is_cut(pieces: list[str], sizes: list[int], opened: bool) -> None:  # noqa: FBT001
    text = "".join(pieces)
    assert answer_in(text, sizes=sizes, opened=opened) == answer_in(text, sizes=[len(text)], opened=opened)


@pytest.mark.parametrize(("opening", "closing"), TAGS)
def test_the_tags_of_each_family_are_known(opening: str, closing: str) -> None:
    assert answer_in(f"{opening}생각{closing}답") == "답"
    assert opens_thinking(["<|im_start|>", "assistant", "Ċ", *opening, "Ċ"])
    assert not opens_thinking(["<|im_start|>", "assistant", "Ċ"])


def test_a_possible_beginning_of_a_tag_is_logged_with_its_token() -> None:
    texts = ["a", " \\[", " x", " <", "th", "is", " [", "T"]
    answer = Generation(CHAT, Sampling(max_tokens=50), most_tokens=50, count=len)
    answer.continue_on(
        Capabilities(token_ids=True), GenerationRequest(chat=CHAT, sampling=Sampling(max_tokens=50), cache_salt="")
    )
    answer.prompt_ids, shown = (1,), ""
    for n, text in enumerate(texts):
        for part in answer.feed(Piece(text, (n,))):
            assert isinstance(part, Delta)
            assert part.text == "".join(texts[token] for token in read_output(part.output).ids)
            shown += part.text
    assert shown == "a \\[ x <this"
