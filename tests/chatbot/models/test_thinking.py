"""What a model thinks is no text of its answer, however it opens and closes it and wherever its output is cut."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatbot.models.completion import Delta
from chatbot.models.thinking import ThinkingFilter
from chatbot.tokenizer import THINKING_MARKERS, Tokenizer
from llm_server.scripted import write_tokenizer


@pytest.fixture(scope="module", params=[True, False], ids=["by ids", "by text"])
def thinker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """A model whose markers are tokens, and one that writes them."""
    folder = tmp_path_factory.mktemp("thinker")
    return Tokenizer.load(write_tokenizer(folder, template="switched", marked=request.param))


def cut(tokenizer: Tokenizer, text: str, sizes: Sequence[int]) -> Iterator[Delta]:
    """Yield the text as an endpoint sends it: so many tokens at once, incomplete characters with their last token."""
    ids, begun, at = tokenizer.encode(text), 0, 0
    for size in [*sizes, len(ids)]:
        at = min(at + size, len(ids))
        if tokenizer.decode(ids[begun:at]).endswith("\N{REPLACEMENT CHARACTER}"):
            continue
        yield Delta(tokenizer.decode(ids[begun:at]), tuple(ids[begun:at]))
        begun = at


def heard(tokenizer: Tokenizer, text: str, *, sizes: Sequence[int] = (), opened: bool = False) -> str:
    """Return what a customer would read of a model's output."""
    said = ThinkingFilter(tokenizer, begins_inside=opened)
    parts = [part for delta in cut(tokenizer, text, sizes or [1] * 999) for part in said.feed(delta)]
    assert [token for part in parts for token in part.token_ids] == tokenizer.encode(text), "a successor gets every id"
    answer = "".join(part.text for part in parts if isinstance(part, Delta))
    assert answer == said.text
    return answer + said.close()


@pytest.mark.parametrize(
    ("output", "opened", "answer"),
    [
        ("연 0.5%입니다.", False, "연 0.5%입니다."),
        ("<think>\n먼저 표를 보자.\n</think>\n\n연 0.5%입니다.", False, "연 0.5%입니다."),
        ("먼저 표를 보자.\n</think>\n\n연 0.5%입니다.", True, "연 0.5%입니다."),
        ("<think>\n먼저 표를 보자.</think>연 0.5%입니다.", True, "연 0.5%입니다."),
        ("<think>a<think>b</think>c</think>답", False, "답"),
        ("a<think>b</think>c</think>답", True, "답"),
        ("<think>a</think>하나 <think>b</think>둘", False, "하나 둘"),
        ("<think></think>답", False, "답"),
        ("<think>a", False, ""),
        ("a", True, ""),
        ("<think>a</think>", False, ""),
        ("<think>a</think>\n\n", False, ""),
        ("하나</think>둘", False, "하나둘"),
        ("<think>a</think>하나</think>둘", False, "하나둘"),
        ("a < b, <thin> [1] <b>", False, "a < b, <thin> [1] <b>"),
        ("답 <thi", False, "답 <thi"),
        ("<think>a</think>\n<answer>\n연 0.5%입니다.</answer>", False, "연 0.5%입니다."),
        ("<response>연 0.5%입니다.</response>\n", False, "연 0.5%입니다.\n"),
        ("a</think><|begin_of_solution|>답<|end_of_solution|>", True, "답"),
        ("답: <answer>예</answer>", False, "답: <answer>예</answer>"),
        ("<answer>답</ans", False, "답</ans"),
        ("<answ", False, "<answ"),
        ("<\n5%", False, "<\n5%"),
        ("<answer>\n< 5%</answer>", False, "< 5%"),
        ("<answer>", False, ""),
    ],
)
def test_only_what_stands_outside_of_every_block_is_the_answer(
    thinker: Tokenizer, output: str, answer: str, *, opened: bool
) -> None:
    assert heard(thinker, output, opened=opened) == answer


BLOCKS = st.lists(
    st.sampled_from(
        [
            "<think>",
            "</think>",
            "<thinking>",
            "<",
            "thi",
            "생각",
            "답 ",
            "🙂",
            "\n",
            "</thin",
            "[1]",
            "<answer>",
            "</answer>",
        ]
    ),
    max_size=12,
).map("".join)


@settings(deadline=None)
@given(output=BLOCKS, sizes=st.lists(st.integers(1, 5), min_size=1, max_size=30), opened=st.booleans())
def test_it_makes_no_difference_where_the_output_is_cut(
    thinker: Tokenizer, output: str, sizes: list[int], *, opened: bool
) -> None:
    assert heard(thinker, output, sizes=sizes, opened=opened) == heard(thinker, output, opened=opened)


def test_other_markers_are_known_by_their_text(tokenizer: Tokenizer) -> None:
    for opening, closing in THINKING_MARKERS:
        assert heard(tokenizer, f"{opening}a{closing}답") == "답"


GEMMA = "<|channel>thought\n먼저 표를 보자.<channel|>"
SOLAR = "<|think|>먼저 표를 보자.<|end|><|begin|>assistant<|content|>"
HARMONY = "<|channel|>analysis<|message|>먼저 표를 보자.<|end|><|start|>assistant"
HARMONY_TOOL = "<|channel|>commentary<|message|>도구가 없다.<|end|><|start|>assistant"
FINAL = "<|channel|>final<|message|>"


@pytest.mark.parametrize(
    ("output", "answer"),
    [
        (f"{GEMMA}답", "답"),
        (f"{SOLAR}답", "답"),
        (f"{HARMONY}{FINAL}답", "답"),
        (f"{HARMONY}{HARMONY_TOOL}{HARMONY}{FINAL}답", "답"),
        (f"{FINAL}답", "답"),
        (HARMONY, ""),
    ],
)
def test_what_other_families_think_is_known_by_its_text(tokenizer: Tokenizer, output: str, answer: str) -> None:
    assert heard(tokenizer, output) == answer
    assert heard(tokenizer, output, sizes=[3] * 999) == answer


def test_an_endpoint_without_token_ids_is_read_by_its_text(tmp_path: Path) -> None:
    thinker = Tokenizer.load(write_tokenizer(tmp_path, template="switched", marked=True))
    said = ThinkingFilter(thinker, begins_inside=False)
    parts = [part for piece in ("<thi", "nk>a</", "think>", "답") for part in said.feed(Delta(piece, ()))]
    assert "".join(part.text for part in parts if isinstance(part, Delta)) == "답"


def test_thinking_and_answer_end_at_their_last_token(tmp_path: Path) -> None:
    thinker = Tokenizer.load(write_tokenizer(tmp_path, template="switched", marked=True))
    ids = tuple(thinker.encode("<think>aaaaaa</think>bbbbbb"))
    whole = Delta("", ids)
    said = ThinkingFilter(thinker, begins_inside=False, most_thinking=3)
    assert [part.token_ids for part in said.feed(whole)] == [ids[:3]]
    assert said.spent
    said = ThinkingFilter(thinker, begins_inside=False, most_answer=2)
    thought, answer = said.feed(whole)
    assert thought.token_ids + answer.token_ids == ids[: len(thought.token_ids) + 2]
    assert said.spent
    assert not said.inside
