"""What an endpoint can do beyond plain chat completions (pure); `detection.py` finds it.

Each lack has a consequence, which docs/operations.md lists.
"""

import re
from dataclasses import dataclass, replace
from typing import Final, Literal

from chatbot.tokens import SpecialTokens

_EXTENSIONS = frozenset({"return_token_ids", "cache_salt", "priority", "chat_template_kwargs"})
OPTIONAL = _EXTENSIONS | {"stream_options", "temperature", "top_p", "seed", "logprobs", "top_logprobs"}
"""The fields that a server may refuse to be sent; `_EXTENSIONS` are not OpenAI's own."""


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
    probes: bool = True
    """It answers a question for one token."""
    logprobs: bool = False
    thinks: bool = False
    opens_thinking: bool = False
    """Its template opens a block of thinking, and its server leaves the thinking in the text."""
    omitted: frozenset[str] = frozenset()
    length_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    top_logprobs: int = 20
    context_tokens: int | None = None
    special: SpecialTokens = SpecialTokens()  # noqa: RUF009  it never changes
    special_ids: frozenset[int] = frozenset()
    template_specials: tuple[int, int] = (0, 0)
    """How many special ids a chat of two messages has, and how many each earlier exchange adds."""
    vocabulary: str = ""
    """Names model, tokenizer and chat template: ids of one vocabulary mean the same everywhere."""
    counts: tuple[int, ...] = ()
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

    def without(self, refusal: bytes) -> "Capabilities":
        """Return the capabilities without the fields that a refusal names; where it names none, with fewer of them."""
        named = (OPTIONAL - self.omitted).intersection(re.findall(r"\w+", refusal.decode("utf-8", "replace")))
        if "top_logprobs" in named and self.top_logprobs > 5:
            return replace(self, top_logprobs=5)
        if named & {"logprobs", "top_logprobs"}:
            named |= {"logprobs", "top_logprobs"}
        if not named and b"max_completion_tokens" in refusal and self.length_field == "max_tokens":
            return replace(self, length_field="max_completion_tokens")
        groups = [named, _EXTENSIONS - self.omitted, OPTIONAL - self.omitted]
        return replace(self, omitted=self.omitted | next(filter(None, groups), frozenset()))


PLAIN: Final = Capabilities(omitted=_EXTENSIONS)
"""Those of an endpoint that was not asked yet."""
