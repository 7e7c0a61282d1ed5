"""An endpoint that is no vLLM: any server with OpenAI's chat completions, hosted or not.

It is asked with messages and sends text, so there is no exact continuation, no comparison of tokenizers, no tenant's
salt and no priority. Tokens are counted by a tokenizer of ours until it reports its own count.
"""

from collections.abc import Iterator
from typing import ClassVar

import aiohttp
import msgspec

from chatbot.models.completion import (
    ChatMessage,
    ChatRequest,
    Choice,
    Delta,
    ModelCard,
    Sampling,
    StreamOptions,
    TopTokens,
    read_chat_top_tokens,
)
from chatbot.models.endpoint import (
    Access,
    Endpoint,
    EndpointFailed,
    GenerationRequest,
    ReplyBroken,
)
from chatbot.models.pool import ModelsFileEntry
from chatbot.models.thinking import Thought
from chatbot.tokenizer import Tokenizer, alternating
from knowledge.profiles import Deadlines

_PIECE = 200
"""Characters of a chunk that are taken at once: at a million blanks in one tiktoken panics, which ends the process."""


class ChatEndpoint(Endpoint):
    """An endpoint with chat completions; `counts` is the tokenizer that its text is counted by."""

    has_token_ids: ClassVar[bool] = False
    _call: ClassVar[str] = "chat/completions"
    _provider: ClassVar[str] = "openai"
    _operation: ClassVar[str] = "chat"
    # With TLS over the internet: a packet that is lost is sent again after a second.
    _connect_seconds: ClassVar[float] = 2.5

    def __init__(
        self,
        http: aiohttp.ClientSession,
        url: str,
        deadlines: Deadlines,
        *,
        counts: Tokenizer,
        entry: ModelsFileEntry,
        access: Access,
    ) -> None:
        super().__init__(http, url, deadlines, model=entry.model, access=access)
        self._counts = counts
        self._length_field = entry.length_field
        self._omit = frozenset(entry.omit) | ({"top_logprobs"} if "logprobs" in entry.omit else frozenset())

    async def model_card(self) -> ModelCard:
        """Return the card of the model to ask for.

        Many servers list none, or other names than they take; gateways refuse the list or let it wait. Who cannot be
        asked anything says so to the word that is asked next.
        """
        try:
            return await super().model_card()
        except EndpointFailed:
            return ModelCard(self.model)

    async def metrics(self, *, within_seconds: float) -> str:  # noqa: ARG002  nothing is waited for
        """Raise `ReplyBroken`: vLLM's metrics are nowhere else, and nobody is asked each second in vain."""
        raise ReplyBroken(f"{self.name}: it has no metrics")

    def _parts(self, choice: Choice) -> Iterator[Delta | Thought]:
        if choice.delta and (thinking := choice.delta.thinking):
            for piece in _pieces(thinking):
                yield Thought(len(self._counts.encode(piece)))
        for piece in _pieces(choice.delta.text if choice.delta else choice.text):
            yield Delta(piece, tuple(self._counts.encode_within(piece)))

    def _body(self, request: GenerationRequest) -> object:
        sampling = request.sampling
        body = ChatRequest(
            model=self.model,
            messages=_messages(request),
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seed=sampling.seed,
            stop=sampling.stop,
            stream=True,
            stream_options=StreamOptions(include_usage=True),
        )
        return self._asked(body, sampling)

    def _top_body(self, request: GenerationRequest, top: int) -> object:
        body = ChatRequest(
            model=self.model, messages=_messages(request), temperature=0.0, logprobs=True, top_logprobs=top
        )
        return self._asked(body, Sampling(max_tokens=1))

    def _read_top(self, reply: bytes) -> TopTokens:
        return read_chat_top_tokens(reply)

    def _asked(self, body: ChatRequest, sampling: Sampling) -> object:
        fields = {name: value for name, value in msgspec.to_builtins(body).items() if name not in self._omit}
        return {**fields, self._length_field: sampling.max_tokens, **self._access.extra_body}


def _pieces(text: str) -> Iterator[str]:
    """Return the text of a chunk in pieces: where an answer may be no longer, the rest is never encoded."""
    return (text[at : at + _PIECE] for at in range(0, len(text), _PIECE))


def _messages(request: GenerationRequest) -> tuple[ChatMessage, ...]:
    return tuple(ChatMessage(message.role, message.content) for message in alternating(request.messages))
