"""An answer as the customer sees it, stored for scoring."""

from collections.abc import Mapping

import msgspec

from chatbot.events import Citation, RelatedPassage, Source


class CustomerAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer as the customer sees it; `cited` maps each citation number to its passage's text."""

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
    understood_as: str = ""
    related: tuple[RelatedPassage, ...] = ()
    quoted: bool = False
    """Whether it quotes the documents instead of using the model's words."""

    @property
    def refused(self) -> bool:
        """Whether the customer got no answer: a refusal, a withheld answer or an error."""
        return self.finish_reason not in ("stop", "length", "budget")
