"""Track an answer across endpoints: the text to emit, what another endpoint continues after, limits and usage (pure).

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
_ESTIMATE_FACTOR = 2
"""The factor on length limits if tokens are estimated instead of counted by their ids."""
_SENTENCE_END = re.compile(r"[.!?。！？…][\"'”’)\]]*(?=\s)|\S(?=\n)")
_CUT_CHARACTER = "\N{REPLACEMENT CHARACTER}"


class _Prompt(msgspec.Struct, frozen=True, array_like=True):
    """The token ids before an answer (prompt and thinking), their vocabulary, and the number of thinking tokens."""

    vocabulary: str = ""
    ids: tuple[int, ...] = ()
    thinking: int = 0


class _OutputLine(msgspec.Struct, frozen=True, array_like=True):
    """A piece of an answer in its log, as a line of JSON; the first line with ids includes the prompt."""

    text: str
    ids: tuple[int, ...] = ()
    tokens: int = 0
    dropped: int = 0
    """The number of preceding ids to remove: an endpoint failed after them, and they were generated again."""
    prompt: _Prompt | None = None


_OUTPUT_LINES = msgspec.json.Decoder(_OutputLine)


@dataclass(frozen=True, slots=True)
class Thought:
    """The number of tokens of a piece of the model's thinking."""

    tokens: int


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of the answer: its text, the number of its tokens, and its log line for a successor."""

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
        """Append a line of the log; before that, remove the ids that the line reports as dropped."""
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
    """An answer in progress, which several endpoints may generate one after the other."""

    def __init__(
        self,
        chat: Chat,
        sampling: Sampling,
        *,
        most_tokens: int,
        count: Callable[[str], int],
        partial_answer: PartialAnswer | None = None,
    ) -> None:
        """`most_tokens` limits answer and thinking over all endpoints; `count` estimates tokens that have no ids."""
        self.answer = partial_answer or PartialAnswer()
        self._chat = chat
        self._sampling = sampling
        self.most_tokens = most_tokens
        self._count = count
        self._earlier_thinking_tokens = self.answer.prompt.thinking
        self._bytes = len(self.answer.text.encode())
        self._dropped_ids = 0
        self._reported: ReportedUsage | None = None
        self.unpaid_tokens = 0
        """Generated tokens that are not charged: lost thinking, and tokens beyond the allowed length."""
        self.finish_reason: Literal["stop", "length"] = "length"
        self.models: dict[str, None] = {}
        """The models that generated parts of the answer, in order."""
        self._begin_on(Capabilities())
        self.ended = self.limit_reached
        """Whether the answer is complete: the model has finished it, or it has reached a limit."""

    def _begin_on(self, capabilities: Capabilities) -> None:
        """Begin on an endpoint: reset everything that belongs to the previous one."""
        self._capabilities = capabilities
        self._earlier_tokens = self.answer.tokens  # of earlier endpoints: they are part of this endpoint's prompt
        self.prompt_ids: Sequence[int] = ()  # of the current endpoint's rendered prompt, if it sends them
        opens_thinking = capabilities.opens_thinking and self._chat.thinks and not self.started
        self._filter = ThinkingFilter(begins_in_thinking=opens_thinking)
        self._held_ids: list[int] = []
        self._held_text = ""
        self._held_tokens = 0
        self._thinking_ids: list[int] = []
        self._thinking_tokens = 0

    @property
    def ids(self) -> Sequence[int]:
        """The ids of the answer that an endpoint continues after."""
        return self.answer.ids[: len(self.answer.ids) - self._dropped_ids]

    @property
    def received_tokens(self) -> int:
        """The number of tokens that the current endpoint has generated."""
        return self._thinking_tokens + self.answer.tokens - self._earlier_tokens + self._held_tokens

    @property
    def started(self) -> bool:
        """Whether a part of the answer was emitted, which the current endpoint must continue."""
        return len(self.answer.texts) > 0

    @property
    def limit_reached(self) -> bool:
        """Whether the answer has reached its length limit."""
        return self.answer.tokens >= min(self._sampling.max_tokens, self.most_tokens)

    @property
    def in_thinking(self) -> bool:
        """Whether a thinking block is open."""
        return self._filter.in_thinking

    def can_continue_on(self, capabilities: Capabilities) -> bool:
        """Return whether an endpoint can begin the answer, or continue it if it has started."""
        if capabilities.context_tokens <= self._chat.tokens + self.answer.tokens:
            return False
        if not self.started:
            return True
        if self.answer.prompt.ids:
            return capabilities.token_ids and capabilities.vocabulary == self.answer.prompt.vocabulary
        return capabilities.continues_text

    def continue_on(self, capabilities: Capabilities, request: GenerationRequest) -> GenerationRequest:
        """Switch to an endpoint; return its request, with the ids or the text to continue after."""
        self._begin_on(capabilities)
        thinking = self._sampling.thinking_tokens if capabilities.thinks and not self.started else 0
        room = capabilities.context_tokens - self._chat.tokens
        most_tokens = min(self._sampling.max_tokens + thinking, self.most_tokens, room)
        sampling = replace(self._sampling, max_tokens=max(1, most_tokens - self.answer.tokens))
        ids = (*self.answer.prompt.ids, *self.ids) if self.started and self.answer.prompt.ids else ()
        return replace(request, sampling=sampling, ids=ids, prefix="" if ids else self.answer.text)

    def drop_cut_character(self, text: str) -> bool:
        """Drop the last id if the text of the ids ends within a character; return whether it was dropped."""
        is_cut = text.endswith(_CUT_CHARACTER) and not self.answer.text.endswith(_CUT_CHARACTER)
        if is_cut:
            self._dropped_ids += 1
        return is_cut

    def record_failure(self) -> None:
        """Account for a failed endpoint: its tokens that were not emitted are generated again and not charged."""
        self.unpaid_tokens += self._held_tokens
        if self.started:  # the thinking led to emitted text
            self._earlier_thinking_tokens += self._thinking_tokens
        else:
            self.unpaid_tokens += self._thinking_tokens

    def feed(self, piece: Piece) -> Sequence[Delta | Thought]:
        """Process a piece; return the answer text and thinking to emit, and all held text once `ended` is set."""
        parts: list[Delta | Thought] = []
        text, ids = piece.text, piece.token_ids
        if piece.thinking:
            self._filter.end_block()
            # One chunk may end the thinking and begin the answer; its ids then count as the answer's.
            thinking_ids = () if text else ids
            tokens = len(thinking_ids) if ids else self._count(piece.thinking)
            parts += self._add_thinking(tokens, thinking_ids)
        if text or not piece.thinking:
            parts += self._add_unfiltered(text, ids)
        if self.ended:
            parts += self._add_answer(self._filter.close(), 0, ())
        return parts

    def _add_unfiltered(self, text: str, ids: Sequence[int]) -> Iterable[Delta | Thought]:
        """Add text that may be the answer's, or thinking between tags."""
        if not (text or self._filter.in_thinking):  # an incomplete character or a special token
            self._held_ids += ids
            self._held_tokens += len(ids)
            return ()
        tokens = len(ids) or self._count(text)
        was_in_thinking = self._filter.in_thinking
        answer_text = self._filter.feed(text)
        if not answer_text and (was_in_thinking or self._filter.in_thinking):
            return self._add_thinking(tokens, ids)
        return self._add_answer(answer_text, tokens, ids)

    def finish(self, reply: StreamDecoder) -> Iterable[Delta]:
        """End the answer with the current endpoint's finish reason; return the held text."""
        self.finish_reason = "length" if FINISH_REASONS.get(reply.finish_reason) == "length" else "stop"
        self._reported = reply.usage
        self.ended = True
        return self._add_answer(self._filter.close(), 0, ())

    def _add_thinking(self, tokens: int, ids: Sequence[int]) -> Iterable[Thought]:
        """Add thinking, and end the answer if it has used up the tokens for thinking."""
        if not self._held_text:  # held tokens, such as a partial tag, belong to the thinking
            tokens += self._held_tokens
            self._thinking_ids += self._held_ids
            self._held_tokens = 0
            self._held_ids.clear()
        self._thinking_tokens += tokens
        self._thinking_ids += ids
        most_tokens = self._sampling.thinking_tokens * (1 if ids else _ESTIMATE_FACTOR)
        if 0 < most_tokens <= self._thinking_tokens:
            self.ended = True
        return (Thought(tokens),)

    def _add_answer(self, text: str, tokens: int, ids: Sequence[int]) -> Iterable[Delta]:
        """Add text of the answer, and end the answer if it has reached its limit; return the text to emit now."""
        self._held_ids += ids
        self._held_tokens += tokens
        self._held_text = self._truncate(self._held_text + text)
        most_tokens = self._sampling.max_tokens * (1 if self._capabilities.token_ids else _ESTIMATE_FACTOR)
        if self.answer.tokens + self._held_tokens >= most_tokens:
            self.ended = True
        if self._filter.held_text and not self.ended:  # the filter holds text of the last ids
            return ()
        text = self._held_text
        if self._capabilities.continues_text and not self.ended:
            text = text[: max((match.end() for match in _SENTENCE_END.finditer(text)), default=0)]
        return (self._delta(text),) if text else ()

    def _delta(self, text: str) -> Delta:
        """Return the beginning `text` of the held text as a piece of the answer, with all held ids."""
        answer, prompt = self.answer, None
        if not answer.texts and self._capabilities.token_ids and self.prompt_ids:
            ids = (*self.prompt_ids, *self._thinking_ids)
            prompt = _Prompt(self._capabilities.vocabulary, ids, self._thinking_tokens)
        logs_ids = prompt is not None or len(answer.prompt.ids) > 0
        self._held_text = self._held_text[len(text) :]
        tokens = min(self._held_tokens, self._count(text)) if self._held_text else self._held_tokens
        line = _OutputLine(text, tuple(self._held_ids) if logs_ids else (), tokens, self._dropped_ids, prompt)
        self._held_tokens -= tokens
        self._held_ids.clear()
        self._dropped_ids = 0
        self._bytes += len(text.encode())
        answer.add(line)
        return Delta(text, tokens, msgspec.json.encode(line) + b"\n")

    def _truncate(self, text: str) -> str:
        """Cut the text to the maximum size of an answer; end the answer if it is too long."""
        most_bytes = _MOST_BYTES * self._sampling.max_tokens - self._bytes
        if len(text) * 4 <= most_bytes:  # a character has at most four bytes
            return text
        encoded = text.encode()
        if len(encoded) <= most_bytes:
            return text
        self.ended = True
        return encoded[: max(0, most_bytes)].decode("utf-8", "ignore")

    def usage(self) -> Usage:
        """Return the charged tokens: the prompt once, and the answer and its thinking up to their limits.

        Add the other generated tokens to `unpaid_tokens`.
        """
        reported, sampling, most_prompt = self._reported, self._sampling, self._chat.tokens
        generated = self.received_tokens
        if reported is not None and reported.generated_tokens:
            generated = reported.generated_tokens
        thinking = self._thinking_tokens
        if reported is not None and not self._capabilities.token_ids:
            thinking = min(max(thinking, reported.thinking_tokens), generated)
        answer = self._earlier_tokens + max(0, generated - thinking)
        thinking += self._earlier_thinking_tokens
        prompt = most_prompt
        cached = 0
        # In a continuation, the reported prompt includes the answer so far, to which most cached tokens belong.
        if reported is not None and not self._earlier_tokens:
            prompt = reported.prompt_tokens or most_prompt
            cached = reported.cached_tokens
        paid = Usage(
            prompt_tokens=min(prompt, most_prompt),
            cached_tokens=min(cached, most_prompt),
            answer_tokens=min(answer, sampling.max_tokens),
            thinking_tokens=min(thinking, sampling.thinking_tokens or thinking),
        )
        self.unpaid_tokens += prompt + answer + thinking - paid.prompt_tokens - paid.generated_tokens
        return paid
