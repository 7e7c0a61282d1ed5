"""Separates what a reasoning model thinks from what it answers; no I/O (docs/decisions/0024-thinking.md).

By token ids where the model's tokenizer has its markers as tokens, which no text can forge: the answer is then decoded
from its own ids. By text where it has none, or where an endpoint sends no ids: what might grow to be a marker is held
back. What is inside of a block is never text here, only ids.

Blocks may nest, and each opening needs its closing, so that nothing of an inner block's surroundings is taken for the
answer; but an opening that only repeats the template's own is none. A closing without an opening closes nothing.
"""

import codecs
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby

from chatbot.models.completion import Delta, Sampling
from chatbot.tokenizer import THINKING_MARKERS, RenderedChat, Tokenizer

_ANSWERS = "<|channel|>final<|message|>"
_CHANNELS = ("<|channel|>analysis", "<|channel|>commentary")
"""gpt-oss says in which channel it goes on; what it has said before the last one is thinking (by text alone)."""
_OPENING = frozenset({*(opening for opening, _ in THINKING_MARKERS), *_CHANNELS})
_MARKERS = [*(marker for pair in THINKING_MARKERS for marker in pair), *_CHANNELS, _ANSWERS]
_ANY_MARKER = re.compile("|".join(map(re.escape, _MARKERS)))
_MAY_BEGIN = re.compile("[" + re.escape("".join({marker[0] for marker in _MARKERS})) + "]")
_PARTS = frozenset(marker[:n] for marker in _MARKERS for n in range(1, len(marker)))
_LONGEST_PART = max(map(len, _PARTS))


_FRAMES = (
    ("<answer>", "</answer>"),
    ("<response>", "</response>"),
    ("<|begin_of_solution|>", "<|end_of_solution|>"),
)
"""What some models put around their answer, once they have thought."""
UNBOUNDED = 2**31
"""More tokens than anything has."""
_Utf8 = partial(codecs.getincrementaldecoder("utf-8"), "replace")


@dataclass(frozen=True, slots=True)
class Thought:
    """A piece of the model's thinking: the number of its tokens, and their ids where a successor goes on after them."""

    tokens: int
    token_ids: tuple[int, ...] = ()


class ThinkingFilter:
    """Separates one answer as it arrives; after `most_thinking` or `most_answer` tokens it is `spent`.

    `begins_inside`: the prompt has opened the model's thinking. `by_text`: the ids are not the model's own.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        begins_inside: bool,
        by_text: bool = False,
        most_thinking: int = UNBOUNDED,
        most_answer: int = UNBOUNDED,
    ) -> None:
        self._by_text_alone = by_text
        self._token_bytes, self._encode = tokenizer.token_bytes, tokenizer.encode
        self._opening, self._closing = tokenizer.thinking_ids
        self._depth = int(begins_inside)
        self._may_repeat = begins_inside  # the template's opening, until anything is thought
        self._strips = tokenizer.thinks  # white space around the thinking is none of the answer
        self._decoder = _Utf8()
        self._held = ""  # text that may grow to be a marker
        self._held_tokens = 0  # those of it, which count with what it turns out to be
        self._frame = ""  # what closes the frame that the answer began with
        self._held_answer = ""  # text of the answer that may grow to be an end of that
        self._most = most_thinking, most_answer
        self.thinking_tokens = 0
        self.answer_tokens = 0
        self.text = ""
        """The answer's."""
        self.spent = False
        """Whether all tokens that the thinking, or the answer, may have are there."""
        self.closed_unopened = False
        """Whether a block was closed that nobody had opened: what stood before it was taken for the answer."""

    def think(self, tokens: int) -> None:
        """Count thinking that the endpoint tells apart by itself: what it sends as text is the answer."""
        self._depth, self._may_repeat, self._strips = 0, False, True
        self.thinking_tokens += tokens
        self.spent = self.spent or self.thinking_tokens >= self._most[0]

    @property
    def inside(self) -> bool:
        """Whether a block of thinking is open."""
        return self._depth > 0

    def feed(self, delta: Delta) -> Iterable[Thought | Delta]:
        """Return what a piece of the model's output holds, in its order."""
        is_plain = not (self._opening or self._depth or self._held or self._held_answer or self._strips)
        if is_plain and _MAY_BEGIN.search(delta.text) is None:
            self.answer_tokens += len(delta.token_ids)
            self.text += delta.text
            self.spent = self.answer_tokens >= self._most[1]
            return (delta,)
        return self._separated(delta)

    def _separated(self, delta: Delta) -> Iterator[Thought | Delta]:
        by_ids = self._opening and delta.token_ids and not self._by_text_alone
        separated = self._by_ids(delta.token_ids) if by_ids else [self._by_text(delta)]
        for part in separated:
            text = self._unframed(part.text) if isinstance(part, Delta) else ""
            if isinstance(part, Thought):
                self.thinking_tokens += part.tokens
            elif part.text or not self._held:
                self.answer_tokens += len(part.token_ids) + self._held_tokens
                self._held_tokens = 0
                self.text += text
            else:
                self._held_tokens += len(part.token_ids)
            self.spent = self.thinking_tokens >= self._most[0] or self.answer_tokens >= self._most[1]
            yield Delta(text, part.token_ids) if isinstance(part, Delta) else part

    def _unframed(self, text: str) -> str:
        """Return what of the answer's next text stands inside of its frame, if it has one."""
        if self.text.strip() and not self._frame:
            return text
        text, self._held_answer = self._held_answer + text, ""
        begun = text.lstrip()
        for opening, closing in () if self._frame else _FRAMES:
            if begun.startswith(opening):
                self._frame, self._strips = closing, True
                text = begun.removeprefix(opening).lstrip()
                break
            if begun and opening.startswith(begun):
                self._held_answer = text
                return ""
        text = text.replace(self._frame, "") if self._frame else text
        ends = (n for n in range(len(self._frame) - 1, 0, -1) if text.endswith(self._frame[:n]))
        kept = len(text) - next(ends, 0)
        text, self._held_answer = text[:kept], text[kept:]
        return text

    @property
    def closing_ids(self) -> tuple[int, ...]:
        """The ids that close every open block."""
        closing = (min(self._closing),) if self._closing else tuple(self._encode(THINKING_MARKERS[0][1]))
        return closing * self._depth

    def close(self) -> str:
        """Return the text that was held back and is a part of the answer, now that nothing follows."""
        held = "" if self.inside else self._unframed(self._held)
        held, self._held, self._held_answer = held + self._held_answer, "", ""
        return held

    def _by_ids(self, token_ids: Sequence[int]) -> Iterator[Thought | Delta]:
        for thinks, run in groupby(token_ids, key=self._is_thought):
            left = self._most[not thinks] - (self.thinking_tokens if thinks else self.answer_tokens)
            ids = tuple(run)[:left]
            if thinks:
                yield Thought(len(ids), ids)
            else:
                text = self._decoder.decode(b"".join(map(self._token_bytes, ids)))
                yield Delta(self._stripped(text), ids)
            if self.spent:
                return

    def _is_thought(self, token: int) -> bool:
        """Return whether the next token is a marker or stands inside of a block."""
        if token in self._opening:
            self._open()
        elif token in self._closing:
            self._close(said=self.text)
        elif self._depth:
            self._may_repeat = self._may_repeat and not self._token_bytes(token).strip()
        else:
            return False
        return True

    def _by_text(self, delta: Delta) -> Thought | Delta:
        inside, text = self.inside, self._held + delta.text
        lengths = range(min(_LONGEST_PART, len(text)), 0, -1)
        kept = next((len(text) - n for n in lengths if text[-n:] in _PARTS), len(text))
        text, self._held = text[:kept], text[kept:]
        shown, at = "", 0
        for marker in _ANY_MARKER.finditer(text):
            shown += self._outside(text[at : marker.start()])
            at = marker.end()
            if marker[0] in _CHANNELS or marker[0] == _ANSWERS:
                self._depth, self._strips = 0, True
            if marker[0] in _OPENING:
                self._open()
            elif marker[0] != _ANSWERS:
                self._close(said=self.text + shown)
        shown = self._stripped(shown + self._outside(text[at:]))
        if shown or not (inside or self._depth):
            return Delta(shown, delta.token_ids)
        self.thinking_tokens += self._held_tokens
        self._held_tokens = 0
        return Thought(len(delta.token_ids), delta.token_ids)

    def _outside(self, text: str) -> str:
        if not self._depth:
            return text
        self._may_repeat = self._may_repeat and not text.strip()
        return ""

    def _open(self) -> None:
        self._strips = True
        if not self._may_repeat:
            self._depth += 1
        self._may_repeat = False

    def _close(self, *, said: str) -> None:
        self._strips = True
        self.closed_unopened = self.closed_unopened or (not self._depth and bool(said.strip()))
        self._depth = max(0, self._depth - 1)

    def _stripped(self, text: str) -> str:
        return text.lstrip() if self._strips and not (self.text or self._held_answer) else text


def begun_answer(
    tokenizer: Tokenizer, prompt: RenderedChat, begun_ids: Sequence[int], sampling: Sampling
) -> ThinkingFilter:
    """Return the filter of the answer to a prompt, after its first tokens."""
    begins_inside = tokenizer.opens_thinking and prompt.thinks
    is_bounded = sampling.thinking_tokens > 0
    said = ThinkingFilter(
        tokenizer,
        begins_inside=begins_inside,
        most_thinking=sampling.thinking_tokens if is_bounded else UNBOUNDED,
        most_answer=sampling.max_tokens if is_bounded else UNBOUNDED,
    )
    decoder = _Utf8()
    for token in begun_ids:
        list(said.feed(Delta(decoder.decode(tokenizer.token_bytes(token)), (token,))))
    return said
