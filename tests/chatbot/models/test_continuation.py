"""Whatever an endpoint held back when it died, the reader sees the answer once and whole."""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import decoders

from chatbot.events import Usage
from chatbot.models.completion import Delta, GenerationEnd, ReportedUsage, Sampling
from chatbot.models.generation import Continuation, Generation
from chatbot.tokenizer import Message, RenderedChat, Tokenizer
from tests.trained_tokenizers import KINDS, trained, write

# A token is a byte or two, so characters and stop strings break anywhere.
PROMPT = [900, 901]


def decode(ids: Sequence[int]) -> str:
    return bytes(token for token in ids if token < 256).decode("utf-8", errors="replace")


def generate(ids: Sequence[int], begun: int, *, lag: int, burst: int) -> Iterator[Delta]:
    """Yield what vLLM would send after `begun` tokens: whole characters only, `lag` of them held back until the end."""
    sent = 0
    for end in range(begun + burst, len(ids) + burst, burst):
        text = decode(ids[begun:end])
        whole = text.rstrip("\N{REPLACEMENT CHARACTER}") if end < len(ids) else text
        until = len(whole) - (lag if end < len(ids) else 0)
        yield Delta(whole[sent : max(sent, until)], tuple(ids[end - burst : end]))
        sent = max(sent, until)


@given(
    text=st.text(alphabet="가ab 🙂é", max_size=20),
    deaths=st.lists(st.integers(0, 12), max_size=4),
    lag=st.integers(0, 4),
    burst=st.integers(1, 3),
)
def test_an_answer_is_shown_once_and_whole_however_often_it_breaks(
    text: str, deaths: list[int], lag: int, burst: int
) -> None:
    ids = [*text.encode(), 999]
    answer = Continuation(PROMPT, Sampling(max_tokens=500))
    shown: list[Delta] = []
    for lives in [*deaths, 10_000]:
        assert answer.prompt_ids[:2] == PROMPT
        kept = answer.prompt_ids[2:]
        assert kept == ids[: len(kept)], "what an endpoint is given is the answer's beginning"
        assert answer.sampling.max_tokens == 500 - len(kept) == 500 - answer.kept
        parts = list(generate(ids, len(kept), lag=lag, burst=burst))
        shown += [new for part in parts[:lives] if (new := answer.feed(part)) is not None]
        if lives >= len(parts):
            break
        answer.resume(decode)
    assert "".join(delta.text for delta in shown) == text
    given_out = [token for delta in shown for token in delta.token_ids]
    assert given_out == ids[: len(given_out)]
    assert decode(given_out) == text
    assert answer.prompt_tokens == 2


def test_nothing_is_begun_before_text_is_shown() -> None:
    answer = Continuation(PROMPT, Sampling(max_tokens=5))
    assert answer.feed(Delta("", (0xEC,))) is None
    assert not answer.begun
    answer.resume(decode)
    assert answer.prompt_ids == PROMPT
    assert answer.feed(Delta("가", (0xEA, 0xB0, 0x80))) == Delta("가", (0xEA, 0xB0, 0x80))
    assert answer.begun


def test_an_allowance_used_up_before_the_break_is_spent() -> None:
    answer = Continuation(PROMPT, Sampling(max_tokens=2))
    answer.feed(Delta("ab", (97, 98)))
    assert not answer.spent
    answer.resume(decode)
    assert answer.spent


def test_special_tokens_that_an_endpoint_held_when_it_died_are_given_out_with_the_next_text() -> None:
    answer = Continuation(PROMPT, Sampling(max_tokens=9))
    answer.feed(Delta("a", (97,)))
    assert answer.feed(Delta("", (300,))) is None
    for _ in range(2):
        answer.resume(decode)
        assert answer.prompt_ids == [*PROMPT, 97, 300]
        assert answer.tokens == 2
    assert answer.feed(Delta("b", (98,))) == Delta("b", (300, 98))


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_that_breaks_off_at_any_token_goes_on_exactly(tmp_path: Path, kind: str) -> None:
    """The endpoint shows its tokens as vLLM does, by the library's stream decoder."""
    theirs = trained(kind)
    ours = Tokenizer.load(write(theirs, tmp_path))
    prompt = ours.render([Message("user", "u")])
    ids = ours.encode_within("중도해지 ₩1,000 입니다. 👩‍👩‍👧 Ünï  it's — 谢谢")
    assert ours.decode(ids) == "중도해지 ₩1,000 입니다. 👩‍👩‍👧 Ünï  it's — 谢谢"

    def said(begun: int) -> Iterator[Delta]:
        stream = decoders.DecodeStream(ids=[*prompt, *ids[:begun]], skip_special_tokens=True)
        for token in ids[begun:]:
            yield Delta(stream.step(theirs, token) or "", (token,))

    whole = "".join(delta.text for delta in said(0))
    for k in range(len(ids)):
        answer = Continuation(prompt, Sampling(max_tokens=500))
        first = [new for delta in islice(said(0), k) if (new := answer.feed(delta)) is not None]
        answer.resume(ours.decode)
        kept = len(answer.prompt_ids) - len(prompt)
        rest = [new for delta in said(kept) if (new := answer.feed(delta)) is not None]
        assert "".join(delta.text for delta in (*first, *rest)) == whole, k
        assert [token for delta in (*first, *rest) for token in delta.token_ids] == ids


def test_a_usage_of_nothing_costs_what_has_arrived(tokenizer: Tokenizer) -> None:
    ids = tuple(tokenizer.encode("예금입니다."))
    answer = Generation(tokenizer, RenderedChat([1, 2]), Sampling(max_tokens=50), most_tokens=50)
    answer.continue_on(None)
    answer.feed(Delta("예금입니다.", ids))
    answer.feed(GenerationEnd("stop", ReportedUsage()))
    assert answer.usage().answer_tokens == len(ids)


@pytest.mark.parametrize("has_ids", [False, True])
@pytest.mark.parametrize(("prompt", "generated"), [(50, 10**9), (10**9, 50)])
def test_a_usage_that_nobody_can_have_costs_what_has_arrived(
    tokenizer: Tokenizer, *, has_ids: bool, prompt: int, generated: int
) -> None:
    answer = Generation(tokenizer, RenderedChat(range(50)), Sampling(max_tokens=50), most_tokens=50)
    answer.continue_on(None if has_ids else tokenizer, has_ids=has_ids)
    ids = tuple(tokenizer.encode("예금입니다."))
    answer.feed(Delta("예금입니다.", ids if has_ids else ()))
    answer.feed(GenerationEnd("stop", ReportedUsage(prompt, generated)))
    assert answer.usage() == Usage(prompt_tokens=50, answer_tokens=len(ids))
