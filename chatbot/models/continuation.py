"""What of an answer has been shown, and how another endpoint continues it; no I/O.

An endpoint's text lags behind its token ids: a character of several tokens is incomplete, or a stop string might be
growing. So an answer is continued from the last token whose text was shown whole: the tokens after it are generated
again, and the part of their text that was shown already is left out. Nothing is lost or shown twice.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from chatbot.models.completion import Delta, Sampling

Decode = Callable[[Sequence[int]], str]


class Continuation:
    """The answer so far; `begun_ids` and `begun_text` are the part of it that another process has shown."""

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
