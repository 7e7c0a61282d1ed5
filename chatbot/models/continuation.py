"""What of an answer has been shown, and how another endpoint goes on after it, pure.

An endpoint's text lags behind its token ids: a character of several tokens is incomplete, or a stop string might be
growing. So an answer goes on from the last token whose text was shown whole: the tokens after it are generated again,
and what of them was shown already is left out. Nothing is lost and nothing comes twice.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from chatbot.models.completion import Delta, Sampling

Decode = Callable[[Sequence[int]], str]


class Continuation:
    """The answer so far; `said` are the tokens (and their text) that another process has shown of it before."""

    def __init__(
        self, prompt_ids: Sequence[int], sampling: Sampling, *, said: Sequence[int] = (), said_text: str = ""
    ) -> None:
        self._prompt_ids = list(prompt_ids)
        self._sampling = sampling
        self._text: list[str] = [said_text]
        self._ids: list[int] = list(said)  # given out, with the text that they are
        self._held: list[int] = []  # came, but their text did not yet
        self._kept = len(said)  # of the answer's tokens, those that the present endpoint got as prompt
        self._skip_text = 0
        self._skip_ids = 0

    @property
    def begun(self) -> bool:
        """Whether anything was shown."""
        return bool(self._ids) or any(self._text)

    @property
    def kept(self) -> int:
        """How many of the answer's tokens the present endpoint did not generate itself."""
        return self._kept

    @property
    def spent(self) -> bool:
        """Whether the answer broke off after the last token it was allowed."""
        return self._kept >= self._sampling.max_tokens

    @property
    def prompt_tokens(self) -> int:
        """The prompt as the customer pays it: once."""
        return len(self._prompt_ids)

    @property
    def prompt_ids(self) -> list[int]:
        """The prompt for the present endpoint: the question's, then the answer's kept tokens."""
        return self._prompt_ids + self._ids[: self._kept]

    @property
    def sampling(self) -> Sampling:
        """The sampling for the present endpoint: what is left of the answer's tokens."""
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
        """Return what of `delta` is new to the reader, or None while that is nothing."""
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
        every = self._ids + self._held
        kept = next(n for n in range(len(every), -1, -1) if shown.startswith(decode(every[:n])))
        self._skip_text = len(shown) - len(decode(every[:kept]))
        self._skip_ids = max(0, len(self._ids) - kept)
        # Held tokens without text of their own (special ones) are kept, so they count as given out.
        self._ids += every[len(self._ids) : kept]
        self._kept = kept
        self._held.clear()

    def _without_shown(self, delta: Delta) -> Delta:
        text, ids = delta.text[self._skip_text :], delta.token_ids[self._skip_ids :]
        self._skip_text -= len(delta.text) - len(text)
        self._skip_ids -= len(delta.token_ids) - len(ids)
        return Delta(text, ids)
