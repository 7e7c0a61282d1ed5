"""The scripted server's messages: the part of vLLM's OpenAI-compatible API that the product uses."""

from typing import Annotated

import msgspec

from llm_server.scripted.answers import NO, YES

Count = Annotated[int, msgspec.Meta(ge=0)]


class StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool = False


class RequestMessage(msgspec.Struct, frozen=True):
    role: str
    content: str


class RequestFields(msgspec.Struct, frozen=True, kw_only=True):
    """The common fields of both completion requests; other fields are ignored."""

    model: str | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    stop: str | tuple[str, ...] | None = None
    return_token_ids: bool = False
    cache_salt: str | None = None
    priority: int = 0


class CompletionRequest(RequestFields, frozen=True, kw_only=True):
    prompt: str | tuple[Count, ...]
    max_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = 16
    logprobs: Count | None = None


class ChatCompletionRequest(RequestFields, frozen=True, kw_only=True):
    messages: tuple[RequestMessage, ...]
    max_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    max_completion_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    logprobs: bool = False
    top_logprobs: Count = 0
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    chat_template_kwargs: dict[str, object] = {}


class TokenizeRequest(msgspec.Struct, frozen=True, kw_only=True):
    prompt: str | None = None
    messages: tuple[RequestMessage, ...] | None = None
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    return_token_strs: bool = False
    chat_template_kwargs: dict[str, object] = {}


class DetokenizeRequest(msgspec.Struct, frozen=True):
    tokens: tuple[Count, ...]


class DetokenizeReply(msgspec.Struct, frozen=True):
    prompt: str


class PromptTokensDetails(msgspec.Struct, frozen=True):
    cached_tokens: int


class Usage(msgspec.Struct, frozen=True):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


class TopLogprob(msgspec.Struct, frozen=True):
    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(msgspec.Struct, frozen=True):
    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[TopLogprob]


class ChatLogprobs(msgspec.Struct, frozen=True):
    content: list[TokenLogprob]


class ChatMessage(msgspec.Struct, frozen=True):
    """A chat message, or its `delta` in a stream."""

    content: str | msgspec.UnsetType = msgspec.UNSET
    role: str | None = None
    reasoning: str | msgspec.UnsetType = msgspec.UNSET


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """One struct for the four kinds of choice; UNSET fields are not sent."""

    index: int = 0
    text: str | msgspec.UnsetType = msgspec.UNSET
    message: ChatMessage | msgspec.UnsetType = msgspec.UNSET
    delta: ChatMessage | msgspec.UnsetType = msgspec.UNSET
    logprobs: ChatLogprobs | None = None
    finish_reason: str | None = None
    token_ids: list[int] | None = None


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    object: str
    created: int
    model: str
    choices: list[Choice]
    usage: Usage | msgspec.UnsetType = msgspec.UNSET
    # Of chat replies; completions carry the prompt's ids in the choice (vLLM 0.32), where no client reads them.
    prompt_token_ids: list[int] | msgspec.UnsetType = msgspec.UNSET


class ErrorInfo(msgspec.Struct, frozen=True):
    message: str
    type: str
    code: int
    param: str | None = None


class ErrorReply(msgspec.Struct, frozen=True):
    error: ErrorInfo


class TokenizeReply(msgspec.Struct, frozen=True):
    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None = None


def probe_candidates(yes: float) -> dict[str, float]:
    """Return the probability of each word of the answerability probe, with `yes` for all affirmative words."""
    shares = (0.9, 0.1)
    probabilities = {word: yes * share for word, share in zip(YES, shares, strict=True)}
    return probabilities | {word: (1 - yes) * share for word, share in zip(NO, shares, strict=True)}
