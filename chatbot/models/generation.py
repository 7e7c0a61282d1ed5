"""An answer as it is generated, endpoint after endpoint: what is new of each piece, its limits, and its cost; no I/O.

An endpoint's text lags behind its token ids while a character is incomplete, so an answer continues after the last id
whose text is there. Where an endpoint sends no ids but continues a text, its text is passed on sentence by sentence, so
that another endpoint continues after a whole one. Nothing is lost or shown twice in either case.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import msgspec

from chatbot.chat import Chat
from chatbot.events import Usage
from chatbot.models.endpoint import GenerationRequest
from chatbot.models.thinking import ThinkingFilter
from chatbot.models.wire import FINISH_REASONS, Capabilities, Piece, ReportedUsage, Sampling, StreamDecoder

_MOST_BYTES = 64
"""Of one token of an answer: more is a server that does not keep to the length that it was asked for."""
_ESTIMATED = 2
"""How many times an answer's length an estimate may be, where no ids count it exactly."""
_SENTENCE_END = re.compile(r"[.!?。！？…][\"'”’)\]]*(?=\s)|\S(?=\n)")
_CUT = "\N{REPLACEMENT CHARACTER}"


class _Prompt(msgspec.Struct, frozen=True, array_like=True):
    """What an answer continues after: the ids of the prompt and of the thinking, and whose ids they are."""

    vocabulary: str = ""
    ids: tuple[int, ...] = ()
    thinking: int = 0


class _Frame(msgspec.Struct, frozen=True, array_like=True):
    """A piece of an answer as its log keeps it, a line of JSON; the first one with ids has the prompt's.

    `dropped`: so many ids before it had no text when an endpoint failed, and were generated again.
    """

    text: str
    ids: tuple[int, ...] = ()
    tokens: int = 0
    dropped: int = 0
    prompt: _Prompt | None = None


_FRAMES = msgspec.json.Decoder(_Frame)


@dataclass(frozen=True, slots=True)
class Thought:
    """A piece of the model's thinking: the number of its tokens."""

    tokens: int


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of the answer: its text, the number of its tokens, and what a successor needs of it, encoded."""

    text: str
    tokens: int
    output: bytes


@dataclass(frozen=True, slots=True)
class PartialAnswer:
    """The part of an answer generated so far: its text, its token ids, and the prompt with their vocabulary."""

    text: str = ""
    tokens: int = 0
    ids: Sequence[int] = ()
    prompt: _Prompt = field(default_factory=_Prompt)


def read_output(output: bytes | bytearray) -> PartialAnswer:
    """Return the part of an answer that its log has.

    Raises:
        msgspec.MsgspecError: another release wrote it.
    """
    text, tokens, ids, prompt = "", 0, list[int](), _Prompt()
    for frame in _FRAMES.decode_lines(output):
        del ids[len(ids) - frame.dropped :]
        ids += frame.ids
        text, tokens, prompt = text + frame.text, tokens + frame.tokens, frame.prompt or prompt
    return PartialAnswer(text, tokens, tuple(ids), prompt)


class Generation:
    """An answer so far; `most_tokens` bounds it over all endpoints, its thinking included.

    `count` estimates tokens if an endpoint sends no ids; `partial_answer` is from another process. `unpaid_tokens` were
    generated and are not charged: lost thinking, and what exceeds the allowed answer. `models` generated a part of it,
    in their order.
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
        partial_answer = partial_answer or PartialAnswer()
        self._chat = chat
        self._sampling = sampling
        self.most_tokens = most_tokens
        self._count = count
        self._texts = [partial_answer.text] if partial_answer.text else []
        self._bytes = len(partial_answer.text.encode())
        self.ids = list(partial_answer.ids)
        self.tokens = partial_answer.tokens
        self._prompt = partial_answer.prompt
        self._thought_before = partial_answer.prompt.thinking  # by endpoints whose answer is continued
        self._dropped = 0
        self._reported: ReportedUsage | None = None
        self.unpaid_tokens = 0
        self.finish_reason: Literal["stop", "length"] = "length"
        self.models: dict[str, None] = {}
        self._start(Capabilities())
        self.over = self.spent

    def _start(self, able: Capabilities) -> None:
        self._able = able
        self._kept = self.tokens  # the answer's tokens that the present endpoint got as a part of its prompt
        self.prompt_ids: Sequence[int] = ()  # of the present endpoint's rendered prompt, where it sends them
        self._filter = ThinkingFilter(begins_inside=able.opens_thinking and self._chat.thinks and not self.started)
        self._held_ids: list[int] = []
        self._held_text = ""
        self._held_tokens = 0
        self._thought_ids: list[int] = []
        self._thinking_tokens = 0

    @property
    def received(self) -> int:
        """How many tokens the present endpoint has generated."""
        return self._thinking_tokens + self.tokens - self._kept + self._held_tokens

    @property
    def started(self) -> bool:
        """Whether any of the answer was passed on, which the present endpoint must continue after."""
        return bool(self._texts)

    @property
    def spent(self) -> bool:
        """Whether no endpoint needs to be asked for more."""
        return self.tokens >= min(self._sampling.max_tokens, self.most_tokens)

    @property
    def thinks(self) -> bool:
        """Whether a block of thinking is open."""
        return self._filter.inside

    def can_continue_on(self, able: Capabilities) -> bool:
        """Return whether an endpoint can continue the answer, or begin it."""
        if self.started and self._prompt.ids:
            return able.token_ids and able.vocabulary == self._prompt.vocabulary
        return able.continues_text or not self.started

    def continue_on(self, able: Capabilities, request: GenerationRequest) -> GenerationRequest:
        """Prepare for an endpoint; return the request with the ids or the text that it continues after."""
        self._start(able)
        thinking = self._sampling.thinking_tokens if able.thinks and not self.started else 0
        left = min(self._sampling.max_tokens + thinking, self.most_tokens) - self.tokens
        left = min(left, able.context_tokens - self._chat.tokens - self.tokens)
        ids = (*self._prompt.ids, *self.ids) if self.started and self._prompt.ids else ()
        sampling = replace(self._sampling, max_tokens=max(1, left))
        return replace(request, sampling=sampling, ids=ids, prefix="" if ids else "".join(self._texts))

    def drop_cut_character(self, text: str) -> bool:
        """Drop the last id where the text of the ids ends within a character; return whether it does."""
        is_cut = text.endswith(_CUT) and not self._texts[-1].endswith(_CUT)
        if is_cut:
            self.ids.pop()
            self._dropped += 1
        return is_cut

    def resume(self) -> None:
        """Prepare for another endpoint after one that failed: what was not passed on is generated again, unpaid."""
        kept = self._thinking_tokens if self.started else 0
        self._thought_before += kept
        self.unpaid_tokens += self._thinking_tokens - kept + self._held_tokens

    def feed(self, piece: Piece) -> Sequence[Delta | Thought]:
        """Return what is new of a piece that the present endpoint generated; the held-back rest once it is `over`."""
        parts: list[Delta | Thought] = []
        text, ids = piece.text, piece.token_ids
        if piece.thinking:
            self._filter.end_block()
            # The end of the thinking and the beginning of the answer may come in one chunk: its ids are the answer's.
            own = () if text else ids
            parts += self._thought(len(own) if ids else self._count(piece.thinking), own)
        if text or not piece.thinking:
            parts += self._unfiltered(text, ids)
        if self.over:
            parts += self._answer(self._filter.close(), 0, ())
        return parts

    def _unfiltered(self, text: str, ids: Sequence[int]) -> Iterable[Delta | Thought]:
        if not (text or self._filter.inside):  # a cut character or a marker, of whatever follows
            self._held_ids += ids
            self._held_tokens += len(ids)
            return ()
        tokens = len(ids) or self._count(text)
        was_inside, text = self._filter.inside, self._filter.feed(text)
        if not text and (was_inside or self._filter.inside):
            return self._thought(tokens, ids)
        return self._answer(text, tokens, ids)

    def finish(self, reply: StreamDecoder) -> Iterable[Delta]:
        """End the answer as the present endpoint has ended it; return the held-back rest."""
        self.finish_reason = "length" if FINISH_REASONS.get(reply.finish_reason) == "length" else "stop"
        self._reported, self.over = reply.usage, True
        return self._answer(self._filter.close(), 0, ())

    def _thought(self, tokens: int, ids: Sequence[int]) -> Iterable[Thought]:
        if not self._held_text:  # what came before it, as a cut tag, is part of it
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
        self.over = self.over or self.tokens + self._held_tokens >= budget
        if self._filter.held and not self.over:  # the last ids have more text than is there
            return ()
        if self._able.continues_text and not self.over:
            text = text[: max((match.end() for match in _SENTENCE_END.finditer(text)), default=0)]
        return (self._passed_on(text),) if text else ()

    def _passed_on(self, text: str) -> Delta:
        """Return a text as a piece of the answer, with the ids that are there."""
        prompt = None
        if self._able.token_ids and self.prompt_ids and not self._texts:
            ids = (*self.prompt_ids, *self._thought_ids)
            prompt = self._prompt = _Prompt(self._able.vocabulary, ids, self._thinking_tokens)
        self._held_text = self._held_text[len(text) :]
        tokens = min(self._held_tokens, self._count(text)) if self._held_text else self._held_tokens
        frame = _Frame(text, tuple(self._held_ids) if self._prompt.ids else (), tokens, self._dropped, prompt)
        self._held_tokens -= tokens
        self._held_ids.clear()
        self._dropped = 0
        self._texts.append(text)
        self._bytes += len(text.encode())
        self.ids += frame.ids
        self.tokens += tokens
        return Delta(text, tokens, msgspec.json.encode(frame) + b"\n")

    def _fitting(self, text: str) -> str:
        """Return as much of the text as an answer of the allowed length can have; the rest ends it."""
        most = _MOST_BYTES * self._sampling.max_tokens - self._bytes
        if len(text) * 4 <= most or len(encoded := text.encode()) <= most:
            return text
        self.over = True
        return encoded[: max(0, most)].decode("utf-8", "ignore")

    def usage(self) -> Usage:
        """Return the charge: the prompt once, the answer and its thinking as far as they were allowed."""
        reported, sampling, most_prompt = self._reported, self._sampling, self._chat.tokens
        generated = (reported.generated_tokens if reported else 0) or self.received
        thinking = self._thinking_tokens
        if reported is not None and not self._able.token_ids:
            thinking = min(max(thinking, reported.thinking_tokens), generated)
        answer, thinking = self._kept + max(0, generated - thinking), thinking + self._thought_before
        # In a continuation the prompt holds the answer so far, and the cached tokens are mostly the answer's own.
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
