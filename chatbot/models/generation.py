"""An answer as it is generated, endpoint after endpoint: what is new of each piece, and what it costs; no I/O.

An endpoint's text lags behind its token ids: a character of several tokens is incomplete, or a stop string might be
growing. So an answer is continued from the last token whose text was shown whole: the tokens after it are generated
again, and the part of their text that was shown already is left out. Nothing is lost or shown twice.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Literal

from chatbot.events import Usage
from chatbot.models.completion import Delta, GenerationEnd, ReportedUsage, Sampling
from chatbot.models.thinking import UNBOUNDED, ThinkingFilter, Thought, begun_answer
from chatbot.tokenizer import RenderedChat, Tokenizer

Decode = Callable[[Sequence[int]], str]
_MOST_TIMES_OURS = 16
"""A count of over so many times ours is a server's mistake: other tokenizers take up to 8, thinking the rest."""


class Continuation:
    """What of an answer has been shown, and how another endpoint continues it.

    `begun_ids` and `begun_text` are the part of it that another process has shown.
    """

    def __init__(
        self, prompt_ids: Sequence[int], sampling: Sampling, *, begun_ids: Sequence[int] = (), begun_text: str = ""
    ) -> None:
        self._prompt_ids = list(prompt_ids)
        self._sampling = sampling
        self._text: list[str] = [begun_text]
        self._ids: list[int] = list(begun_ids)  # those whose text was shown
        self._held: list[int] = []  # those that arrived without text yet
        self._kept = len(begun_ids)  # how many of the answer's tokens the present endpoint got as a part of its prompt
        self._skip_text = 0  # characters and tokens of the present endpoint that were shown already
        self._skip_ids = 0

    @property
    def begun(self) -> bool:
        """Whether anything was shown."""
        return bool(self._ids) or any(self._text)

    @property
    def kept(self) -> int:
        """How many of the answer's tokens the present endpoint got as a part of its prompt."""
        return self._kept

    @property
    def spent(self) -> bool:
        """Whether all tokens that the answer may have were generated before the endpoint failed."""
        return self._kept >= self._sampling.max_tokens

    @property
    def prompt_tokens(self) -> int:
        """The tokens of the prompt, counted once for all endpoints."""
        return len(self._prompt_ids)

    @property
    def prompt_ids(self) -> list[int]:
        """The prompt for the present endpoint: that of the answer, then the answer's kept tokens."""
        return self._prompt_ids + (self._ids + self._held)[: self._kept]

    @property
    def sampling(self) -> Sampling:
        """The sampling for the present endpoint, with the number of tokens that are left to generate."""
        return replace(self._sampling, max_tokens=self._sampling.max_tokens - self._kept)

    @property
    def text(self) -> str:
        """The answer as it was shown."""
        return "".join(self._text)

    @property
    def tokens(self) -> int:
        """How many tokens the answer has so far."""
        return len(self._ids) + len(self._held)

    def feed(self, delta: Delta) -> Delta | None:
        """Return the part of `delta` that was not shown yet, or None where it has no text."""
        if self._skip_text or self._skip_ids:
            delta = self._without_shown(delta)
        if not delta.text:
            self._held += delta.token_ids
            return None
        ids = (*self._held, *delta.token_ids) if self._held else delta.token_ids
        self._held.clear()
        self._ids += ids
        self._text.append(delta.text)
        return Delta(delta.text, ids)

    def resume(self, decode: Decode) -> None:
        """Prepare for another endpoint: keep the tokens whose text was shown whole."""
        shown = self.text
        ids = self._ids + self._held
        kept = next(n for n in range(len(ids), -1, -1) if shown.startswith(decode(ids[:n])))
        self._skip_text = len(shown) - len(decode(ids[:kept]))
        self._skip_ids = max(0, len(self._ids) - kept)
        # Held tokens without text of their own (special ones) are kept: they are shown with the next text.
        self._held = ids[len(self._ids) : kept]
        self._kept = kept

    def _without_shown(self, delta: Delta) -> Delta:
        text, ids = delta.text[self._skip_text :], delta.token_ids[self._skip_ids :]
        self._skip_text -= len(delta.text) - len(text)
        self._skip_ids -= len(delta.token_ids) - len(ids)
        return Delta(text, ids)


class Generation:
    """An answer so far, in our tokens; `most_tokens` are all that it may have, its thinking included."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt: RenderedChat,
        sampling: Sampling,
        *,
        most_tokens: int,
        begun_ids: Sequence[int] = (),
    ) -> None:
        self.most_tokens = most_tokens
        self._tokenizer = tokenizer
        self._prompt = prompt
        self._most_thinking = sampling.thinking_tokens
        self._most_answer = sampling.max_tokens
        self._continuation = Continuation(
            prompt.ids,
            replace(sampling, max_tokens=most_tokens),
            begun_ids=begun_ids,
            begun_text=tokenizer.decode(begun_ids),
        )
        self._said = begun_answer(tokenizer, prompt, begun_ids, sampling)
        self._foreign: ThinkingFilter | None = None
        self._counts_itself = False
        self._reported: ReportedUsage | None = None
        self.received = 0
        """How many tokens the present endpoint has generated."""
        self.over = self._said.spent
        """Whether the answer is whole, or it or its thinking has all its tokens: the present endpoint is to be left."""
        self.finish_reason: Literal["stop", "length"] = "length"

    @property
    def begun(self) -> bool:
        """Whether anything was generated that the present endpoint must go on after."""
        return self._continuation.begun

    @property
    def spent(self) -> bool:
        """Whether no endpoint need be asked for more."""
        return self._continuation.spent or self.over

    @property
    def thinks(self) -> bool:
        """Whether a block of thinking is open."""
        return (self._foreign or self._said).inside

    @property
    def closed_unopened(self) -> bool:
        """Whether a block of thinking was closed that nobody had opened."""
        return (self._foreign or self._said).closed_unopened

    @property
    def prompt_ids(self) -> list[int]:
        """The prompt for the present endpoint, where its tokenizer is ours."""
        return self._continuation.prompt_ids

    @property
    def sampling(self) -> Sampling:
        """The sampling for the present endpoint."""
        return self._continuation.sampling

    @property
    def text(self) -> str:
        """The answer's text, without thinking."""
        return self._said.text

    def continue_on(self, tokenizer: Tokenizer | None, *, has_ids: bool = True) -> None:
        """Prepare for an endpoint; its tokenizer is None where it is ours.

        One with another tokenizer begins with the answer's text: its thinking has no ids that others could go on after.
        One that sends no token ids (`has_ids`) is taken by its own count.
        """
        self._foreign = None
        self._counts_itself = not has_ids
        self.received = 0
        if tokenizer is not None:
            begins_inside = tokenizer.opens_thinking and self._prompt.thinks and not self.text
            self._foreign = ThinkingFilter(
                tokenizer,
                begins_inside=begins_inside,
                by_text=not has_ids,
                most_thinking=self._most_thinking or UNBOUNDED,
                # Its tokens may be fewer than ours for the same text; and some servers know no length.
                most_answer=UNBOUNDED if has_ids else 2 * self._most_answer,
            )

    def resume(self) -> None:
        """Prepare for another endpoint after one that failed."""
        self._continuation.resume(self._tokenizer.decode)

    def feed(self, piece: Delta | Thought | GenerationEnd) -> Sequence[Delta | Thought]:
        """Return what is new of a piece that the present endpoint generated; what was held back once it is `over`."""
        parts: Iterable[Delta | Thought] = ()
        if isinstance(piece, Delta):
            self.received += len(piece.token_ids)
            if self._foreign is not None:
                parts = self._translated(self._foreign.feed(piece))
            elif (new := self._continuation.feed(piece)) is not None:
                parts = self._said.feed(new)
        elif isinstance(piece, Thought):
            parts = self._thought(piece)
        else:
            self.finish_reason, self._reported, self.over = piece.finish_reason, piece.usage, True
        parts = tuple(parts)
        self.over = self.over or self._said.spent or (self._foreign is not None and self._foreign.spent)
        return (*parts, *self._held_back()) if self.over else parts

    def _thought(self, thought: Thought) -> tuple[Thought]:
        """Count a piece of thinking of an endpoint that tells it apart by itself."""
        self.received += thought.tokens
        if self._foreign is not None:
            self._foreign.think(thought.tokens)
        return (thought,)

    def _held_back(self) -> Iterator[Delta]:
        """Yield what was held back, now that the present endpoint generates no more."""
        if self._foreign is not None and (held := self._foreign.close()):
            yield from (part for part in self._translated([Delta(held, ())]) if isinstance(part, Delta))
        if held := self._said.close():
            yield Delta(held, ())

    def usage(self) -> Usage:
        """Return what the customer pays for: the prompt once, every token of the answer and of its thinking."""
        reported = self._reported if self.usage_is_believed else None
        continuation, thinking = self._continuation, self._said.thinking_tokens
        if self._foreign is not None and self._counts_itself and reported is not None and reported.generated_tokens:
            thought = min(max(self._foreign.thinking_tokens, reported.thinking_tokens), reported.generated_tokens)
            return Usage(
                prompt_tokens=reported.prompt_tokens or continuation.prompt_tokens,
                cached_tokens=reported.cached_tokens,
                answer_tokens=reported.generated_tokens - thought,
                thinking_tokens=thought,
            )
        if self._foreign is not None:
            generated, thinking_elsewhere = continuation.tokens, self._foreign.thinking_tokens
        else:
            # A gateway may report nothing, or zeros.
            generated = max(continuation.tokens, continuation.kept + reported.completion_tokens if reported else 0)
            thinking_elsewhere = 0
        return Usage(
            prompt_tokens=continuation.prompt_tokens,
            # In a continuation the cached tokens are mostly the answer's own.
            cached_tokens=reported.cached_tokens if reported and not (self._foreign or continuation.kept) else 0,
            answer_tokens=self._said.answer_tokens if self._said.spent else generated - thinking,
            thinking_tokens=thinking + thinking_elsewhere,
        )

    @property
    def usage_is_believed(self) -> bool:
        """Whether the endpoint reports no more tokens than an answer can have."""
        reported = self._reported
        most_prompt, most = (_MOST_TIMES_OURS * ours for ours in (self._continuation.prompt_tokens, self.most_tokens))
        return reported is None or (reported.prompt_tokens <= most_prompt and reported.generated_tokens <= most)

    def _translated(self, parts: Iterable[Delta | Thought]) -> Iterator[Delta | Thought]:
        for part in parts:
            if isinstance(part, Thought):
                yield Thought(part.tokens)
            elif (new := self._continuation.feed(self._in_our_tokens(part.text))) is not None:
                yield from self._said.feed(new)

    def _in_our_tokens(self, text: str) -> Delta:
        """Return the text with the ids that it has in our tokenizer, after those that close what our prompt opened."""
        ids = (*self._said.closing_ids, *self._tokenizer.encode_within(text))
        return Delta(self._tokenizer.decode(ids), ids)
