"""An answer as it is generated, endpoint after endpoint: what is new of each piece, and what it costs; no I/O."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from chatbot.events import Usage
from chatbot.models.completion import Delta, ReportedUsage, Sampling
from chatbot.models.continuation import Continuation
from chatbot.models.thinking import UNBOUNDED, ThinkingFilter, Thought, begun_answer
from chatbot.tokenizer import RenderedChat, Tokenizer


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
        self._tokenizer = tokenizer
        self._prompt = prompt
        self._most_thinking = sampling.thinking_tokens
        self._continuation = Continuation(
            prompt.ids,
            replace(sampling, max_tokens=most_tokens),
            begun_ids=begun_ids,
            begun_text=tokenizer.decode(begun_ids),
        )
        self._said = begun_answer(tokenizer, prompt, begun_ids, sampling)
        self._foreign: ThinkingFilter | None = None
        self._counts_itself = False

    @property
    def begun(self) -> bool:
        """Whether anything was generated that the present endpoint must go on after."""
        return self._continuation.begun

    @property
    def cut(self) -> bool:
        """Whether the answer, or its thinking, has all its tokens, and the present endpoint is to be left."""
        return self._said.spent or (self._foreign is not None and self._foreign.spent)

    @property
    def spent(self) -> bool:
        """Whether no endpoint need be asked for more."""
        return self._continuation.spent or self.cut

    @property
    def thinks(self) -> bool:
        """Whether a block of thinking is open."""
        return (self._foreign or self._said).inside

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
        if tokenizer is not None:
            begins_inside = tokenizer.opens_thinking and self._prompt.thinks and not self.text
            self._foreign = ThinkingFilter(
                tokenizer,
                begins_inside=begins_inside,
                by_text=not has_ids,
                most_thinking=self._most_thinking or UNBOUNDED,
            )

    def resume(self) -> None:
        """Prepare for another endpoint after one that failed."""
        self._continuation.resume(self._tokenizer.decode)

    def feed(self, delta: Delta | Thought) -> Iterable[Delta | Thought]:
        """Return what is new of a piece that the present endpoint generated."""
        if isinstance(delta, Thought):  # of an endpoint that tells thinking apart by itself
            if self._foreign is not None:
                self._foreign.think(delta.tokens)
            return (delta,)
        if self._foreign is not None:
            return self._translated(self._foreign.feed(delta))
        new = self._continuation.feed(delta)
        return () if new is None else self._said.feed(new)

    def close(self) -> Iterator[Delta]:
        """Yield what was held back, now that the present endpoint has ended the answer."""
        if self._foreign is not None and (held := self._foreign.close()):
            yield from (part for part in self._translated([Delta(held, ())]) if isinstance(part, Delta))
        if held := self._said.close():
            yield Delta(held, ())

    def usage(self, reported: ReportedUsage | None = None) -> Usage:
        """Return what the customer pays for: the prompt once, every token of the answer and of its thinking."""
        continuation, thinking = self._continuation, self._said.thinking_tokens
        if self._foreign is not None and self._counts_itself and reported is not None and reported.completion_tokens:
            thought = max(self._foreign.thinking_tokens, reported.thinking_tokens)
            return Usage(
                prompt_tokens=reported.prompt_tokens or continuation.prompt_tokens,
                cached_tokens=reported.cached_tokens,
                answer_tokens=max(0, reported.completion_tokens - thought),
                thinking_tokens=min(thought, reported.completion_tokens),
            )
        if self._foreign is not None:
            generated, thinking_elsewhere = continuation.tokens, self._foreign.thinking_tokens
        else:
            generated = continuation.kept + reported.completion_tokens if reported else continuation.tokens
            thinking_elsewhere = 0
        return Usage(
            prompt_tokens=continuation.prompt_tokens,
            # In a continuation the cached tokens are mostly the answer's own.
            cached_tokens=reported.cached_tokens if reported and not (self._foreign or continuation.kept) else 0,
            answer_tokens=self._said.answer_tokens if self._said.spent else generated - thinking,
            thinking_tokens=thinking + thinking_elsewhere,
        )

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
