"""Track an answer across endpoints: the new text of each piece, its limits and its cost. No I/O.

An endpoint's text lags behind its token ids while a character is incomplete, so an answer continues after the last id
whose text has arrived. If an endpoint sends no ids but can continue a text, its text is emitted in whole sentences, so
that another endpoint continues after a complete sentence. In both cases no text is lost or repeated.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import msgspec

from chatbot.chat import Chat
from chatbot.events import Usage
from chatbot.models.endpoint import (
    FINISH_REASONS,
    Capabilities,
    GenerationRequest,
    Piece,
    ReportedUsage,
    Sampling,
    StreamDecoder,
)
from chatbot.models.thinking import ThinkingFilter

_MOST_BYTES = 64
"""The maximum size of one token: a server that sends more ignores the requested length."""
_ESTIMATED = 2
"""The factor on length limits if tokens are estimated and not counted by their ids."""
_SENTENCE_END = re.compile(r"[.!?。！？…][\"'”’)\]]*(?=\s)|\S(?=\n)")
_CUT = "\N{REPLACEMENT CHARACTER}"


class _Prompt(msgspec.Struct, frozen=True, array_like=True):
    """The token ids of the prompt and the thinking before an answer, their vocabulary, and the thinking's length."""

    vocabulary: str = ""
    ids: tuple[int, ...] = ()
    thinking: int = 0


class _OutputLine(msgspec.Struct, frozen=True, array_like=True):
    """A piece of an answer in its log, as a line of JSON; the first line with ids includes the prompt.

    `dropped` is the number of preceding ids without text when an endpoint failed; they were generated again.
    """

    text: str
    ids: tuple[int, ...] = ()
    tokens: int = 0
    dropped: int = 0
    prompt: _Prompt | None = None


_OUTPUT_LINES = msgspec.json.Decoder(_OutputLine)


@dataclass(frozen=True, slots=True)
class Thought:
    """A piece of the model's thinking: the number of its tokens."""

    tokens: int


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of the answer: its text, the number of its tokens, and its line of the log for a successor."""

    text: str
    tokens: int
    output: bytes


@dataclass(slots=True)
class PartialAnswer:
    """The part of an answer generated so far: its text, its token ids, and its prompt."""

    texts: list[str] = field(default_factory=list)
    tokens: int = 0
    ids: list[int] = field(default_factory=list)
    prompt: _Prompt = field(default_factory=_Prompt)

    @property
    def text(self) -> str:
        """The text of all pieces."""
        return "".join(self.texts)

    def add(self, line: _OutputLine) -> None:
        """Append a line of the log."""
        if line.dropped:
            del self.ids[-line.dropped :]
        self.ids += line.ids
        self.texts.append(line.text)
        self.tokens += line.tokens
        self.prompt = line.prompt or self.prompt


def read_output(output: bytes | bytearray) -> PartialAnswer:
    """Decode the partial answer in a log.

    Raises:
        msgspec.MsgspecError: the log has the format of another release.
    """
    answer = PartialAnswer()
    for line in _OUTPUT_LINES.decode_lines(output):
        answer.add(line)
    return answer


class Generation:
    """An answer in progress; `most_tokens` bounds it over all endpoints, including its thinking.

    `count` estimates tokens if an endpoint sends no ids; `partial_answer` comes from another process. `unpaid_tokens`
    are generated tokens that are not charged: lost thinking, and tokens beyond the allowed length. `models` are the
    models that generated parts of it, in order.
    """

    def __init__(
        self,
        chat: Chat,
        sampling: Sampling,
        *,
        most_tokens: int,
        count: Callable[[str], int],
        partial_answer: PartialAnswer | None = None,
    ) -> None:
        self.answer = partial_answer or PartialAnswer()
        self._chat = chat
        self._sampling = sampling
        self.most_tokens = most_tokens
        self._count = count
        self._thought_before = self.answer.prompt.thinking  # by earlier endpoints of this answer
        self._bytes = len(self.answer.text.encode())
        self._dropped = 0
        self._reported: ReportedUsage | None = None
        self.unpaid_tokens = 0
        self.finish_reason: Literal["stop", "length"] = "length"
        self.models: dict[str, None] = {}
        self._start(Capabilities())
        self.over = self.spent

    def _start(self, able: Capabilities) -> None:
        self._able = able
        self._kept = self.answer.tokens  # tokens of earlier endpoints, which are part of this endpoint's prompt
        self.prompt_ids: Sequence[int] = ()  # of the current endpoint's rendered prompt, if it sends them
        self._filter = ThinkingFilter(begins_inside=able.opens_thinking and self._chat.thinks and not self.started)
        self._held_ids: list[int] = []
        self._held_text = ""
        self._held_tokens = 0
        self._thought_ids: list[int] = []
        self._thinking_tokens = 0

    @property
    def ids(self) -> Sequence[int]:
        """The ids of the answer that an endpoint continues after."""
        return self.answer.ids[: len(self.answer.ids) - self._dropped]

    @property
    def received(self) -> int:
        """The number of tokens that the current endpoint has generated."""
        return self._thinking_tokens + self.answer.tokens - self._kept + self._held_tokens

    @property
    def started(self) -> bool:
        """Whether a part of the answer was emitted, which the current endpoint must continue."""
        return bool(self.answer.texts)

    @property
    def spent(self) -> bool:
        """Whether the answer has reached its length limit."""
        return self.answer.tokens >= min(self._sampling.max_tokens, self.most_tokens)

    @property
    def thinks(self) -> bool:
        """Whether a thinking block is open."""
        return self._filter.inside

    def can_continue_on(self, able: Capabilities) -> bool:
        """Return whether an endpoint can continue or begin the answer."""
        if self.started and self.answer.prompt.ids:
            return able.token_ids and able.vocabulary == self.answer.prompt.vocabulary
        return able.continues_text or not self.started

    def continue_on(self, able: Capabilities, request: GenerationRequest) -> GenerationRequest:
        """Switch to an endpoint; return its request, with the ids or the text to continue after."""
        self._start(able)
        thinking = self._sampling.thinking_tokens if able.thinks and not self.started else 0
        most = min(self._sampling.max_tokens + thinking, self.most_tokens, able.context_tokens - self._chat.tokens)
        sampling = replace(self._sampling, max_tokens=max(1, most - self.answer.tokens))
        ids = (*self.answer.prompt.ids, *self.ids) if self.started and self.answer.prompt.ids else ()
        return replace(request, sampling=sampling, ids=ids, prefix="" if ids else self.answer.text)

    def drop_cut_character(self, text: str) -> bool:
        """Drop the last id if the text of the ids ends within a character; return whether it does."""
        is_cut = text.endswith(_CUT) and not self.answer.text.endswith(_CUT)
        self._dropped += is_cut
        return is_cut

    def record_failure(self) -> None:
        """Account for a failed endpoint: its tokens that were not emitted are generated again and not charged."""
        thinking_tokens = self._thinking_tokens if self.started else 0
        self._thought_before += thinking_tokens
        self.unpaid_tokens += self._thinking_tokens - thinking_tokens + self._held_tokens

    def feed(self, piece: Piece) -> Sequence[Delta | Thought]:
        """Return the new parts of a piece; once the answer is `over`, include the held-back rest."""
        parts: list[Delta | Thought] = []
        text, ids = piece.text, piece.token_ids
        if piece.thinking:
            self._filter.end_block()
            # One chunk may end the thinking and begin the answer; its ids then count as the answer's.
            own = () if text else ids
            parts += self._thought(len(own) if ids else self._count(piece.thinking), own)
        if text or not piece.thinking:
            parts += self._unfiltered(text, ids)
        if self.over:
            parts += self._answer(self._filter.close(), 0, ())
        return parts

    def _unfiltered(self, text: str, ids: Sequence[int]) -> Iterable[Delta | Thought]:
        if not (text or self._filter.inside):  # an incomplete character or a marker
            self._held_ids += ids
            self._held_tokens += len(ids)
            return ()
        tokens = len(ids) or self._count(text)
        was_inside, text = self._filter.inside, self._filter.feed(text)
        if not text and (was_inside or self._filter.inside):
            return self._thought(tokens, ids)
        return self._answer(text, tokens, ids)

    def finish(self, reply: StreamDecoder) -> Iterable[Delta]:
        """End the answer with the current endpoint's finish reason; return the held-back rest."""
        self.finish_reason = "length" if FINISH_REASONS.get(reply.finish_reason) == "length" else "stop"
        self._reported, self.over = reply.usage, True
        return self._answer(self._filter.close(), 0, ())

    def _thought(self, tokens: int, ids: Sequence[int]) -> Iterable[Thought]:
        if not self._held_text:  # held-back tokens, such as a partial tag, belong to the thinking
            tokens += self._held_tokens
            self._thought_ids += self._held_ids
            self._held_tokens = 0
            self._held_ids.clear()
        self._thinking_tokens += tokens
        self._thought_ids += ids
        budget = self._sampling.thinking_tokens * (1 if ids else _ESTIMATED)
        self.over = self.over or 0 < budget <= self._thinking_tokens
        return (Thought(tokens),)

    def _answer(self, text: str, tokens: int, ids: Sequence[int]) -> Iterable[Delta]:
        self._held_ids += ids
        self._held_tokens += tokens
        self._held_text = text = self._fitting(self._held_text + text)
        budget = self._sampling.max_tokens * (1 if self._able.token_ids else _ESTIMATED)
        self.over = self.over or self.answer.tokens + self._held_tokens >= budget
        if self._filter.held and not self.over:  # text of the last ids is still held back
            return ()
        if self._able.continues_text and not self.over:
            text = text[: max((match.end() for match in _SENTENCE_END.finditer(text)), default=0)]
        return (self._passed_on(text),) if text else ()

    def _passed_on(self, text: str) -> Delta:
        """Emit a text as a piece of the answer, with the held ids."""
        answer, prompt = self.answer, None
        if not answer.texts and self._able.token_ids and self.prompt_ids:
            ids = (*self.prompt_ids, *self._thought_ids)
            prompt = _Prompt(self._able.vocabulary, ids, self._thinking_tokens)
        logs_ids = prompt or answer.prompt.ids
        self._held_text = self._held_text[len(text) :]
        tokens = min(self._held_tokens, self._count(text)) if self._held_text else self._held_tokens
        line = _OutputLine(text, tuple(self._held_ids) if logs_ids else (), tokens, self._dropped, prompt)
        self._held_tokens -= tokens
        self._held_ids.clear()
        self._dropped = 0
        self._bytes += len(text.encode())
        answer.add(line)
        return Delta(text, tokens, msgspec.json.encode(line) + b"\n")

    def _fitting(self, text: str) -> str:
        """Cut the text to the maximum size of an answer; set `over` if it is too long."""
        most = _MOST_BYTES * self._sampling.max_tokens - self._bytes
        if len(text) * 4 <= most or len(encoded := text.encode()) <= most:
            return text
        self.over = True
        return encoded[: max(0, most)].decode("utf-8", "ignore")

    def usage(self) -> Usage:
        """Return the charged tokens: the prompt once, and the answer and its thinking up to their limits."""
        reported, sampling, most_prompt = self._reported, self._sampling, self._chat.tokens
        generated = (reported.generated_tokens if reported else 0) or self.received
        thinking = self._thinking_tokens
        if reported is not None and not self._able.token_ids:
            thinking = min(max(thinking, reported.thinking_tokens), generated)
        answer, thinking = self._kept + max(0, generated - thinking), thinking + self._thought_before
        # In a continuation, the prompt includes the answer so far, and most cached tokens are the answer's own.
        first = reported if reported is not None and not self._kept else None
        prompt = (first.prompt_tokens if first else 0) or most_prompt
        paid = Usage(
            prompt_tokens=min(prompt, most_prompt),
            cached_tokens=min(first.cached_tokens, most_prompt) if first else 0,
            answer_tokens=min(answer, sampling.max_tokens),
            thinking_tokens=min(thinking, sampling.thinking_tokens or thinking),
        )
        self.unpaid_tokens += prompt + answer + thinking - paid.prompt_tokens - paid.generated_tokens
        return paid
