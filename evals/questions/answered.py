"""An answer as a customer saw it, kept for scoring."""

from collections.abc import Mapping

import msgspec

from chatbot.events import Citation, Source


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """An answer as the customer saw it; `cited` holds the text of every cited passage by its number."""

    id: str
    text: str
    finish_reason: str
    grounded: bool
    sources: tuple[Source, ...]
    citations: tuple[Citation, ...]
    cited: Mapping[int, str]
    notices: tuple[str, ...]
    first_token_seconds: float | None
    seconds: float
    prompt_tokens: int
    answer_tokens: int

    @property
    def refused(self) -> bool:
        """Whether the customer was told that there is no answer, or nothing at all."""
        return self.finish_reason not in ("stop", "length", "budget")
