"""What an endpoint can do beyond plain chat completions (pure); `detection.py` finds it.

Each lack has a consequence, which docs/models.md lists.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from chatbot.tokens import FAMILY_TOKENS, SpecialTokens

_EXTENSIONS = frozenset({"return_token_ids", "cache_salt", "priority", "chat_template_kwargs"})
FORMS: Final = (
    frozenset[str](),
    frozenset({"priority"}),
    _EXTENSIONS,
    _EXTENSIONS | {"seed"},
    _EXTENSIONS | {"seed", "temperature", "top_p", "max_tokens"},
)
"""The fields that each form of a request leaves out: vLLM's (an error without priority scheduling), OpenAI's, those of
servers without a seed, and of OpenAI's reasoning models, which have `max_completion_tokens`.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What an endpoint takes and sends; `omitted` are the fields that it refuses."""

    token_ids: bool = False
    """It sends the ids of prompt and answer, and takes them to continue an answer."""
    continues_text: bool = False
    """It continues an answer after its text (`continue_final_message`)."""
    tokenize: bool = False
    """It has vLLM's `/tokenize`."""
    usage: bool = False
    top_logprobs: int | None = 20
    """How many log probabilities a probe asks for; 0: it has none; None: it refuses a question for one token."""
    logprobs: bool = False
    thinks: bool = False
    opens_thinking: bool = False
    """Its template opens a block of thinking, and its server leaves the thinking in the text."""
    omitted: frozenset[str] = frozenset()
    context_tokens: int | None = None
    special: SpecialTokens = FAMILY_TOKENS
    special_ids: frozenset[int] = frozenset()
    template_specials: tuple[int, int] = (0, 0)
    """How many special ids a chat of two messages has, and how many each earlier exchange adds."""
    vocabulary: str = ""
    """Names model, tokenizer and chat template: ids of one vocabulary mean the same everywhere."""
    counts: Sequence[int] = ()
    """Its own counts of `SAMPLES`, and of a chat of two messages of one token."""

    @property
    def lacks(self) -> tuple[str, ...]:
        """The names of what the server lacks, as the log and `/readyz` have them."""
        has = {
            "token_ids": self.token_ids,
            "tokenize": self.tokenize,
            "cache_salt": "cache_salt" not in self.omitted,
            "priority": "priority" not in self.omitted,
            "logprobs": self.logprobs,
            "usage": self.usage,
            "continuation": self.token_ids or self.continues_text,
        }
        return tuple(name for name, there in has.items() if not there)
