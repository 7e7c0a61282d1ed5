"""Encodes the scripted server's answers as chunks and bodies with the fields of vLLM 0.32 (pure)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import uuid4

import msgspec

from llm_server.scripted.byte_tokenizer import MARKERS
from llm_server.scripted.speech import Behaviour, GeneratedToken, encode, render
from llm_server.scripted.wire import (
    ChatCompletionRequest,
    ChatLogprobs,
    ChatMessage,
    Choice,
    CompletionRequest,
    PromptTokensDetails,
    Reply,
    TokenLogprob,
    TopLogprob,
    Usage,
)

UNSET = msgspec.UNSET


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """A request to either route: the prompt, the answer's limits, and the reply's format.

    `token_ids` and `usage`: whether the reply has them; `parses`: whether it separates the thinking from the answer.
    """

    chat: bool
    prompt_ids: Sequence[int]
    max_tokens: int
    stop: tuple[str, ...]
    stream: bool
    top_logprobs: int | None
    token_ids: bool
    parses: bool
    begins_with_thinking: bool
    usage: bool
    cache_salt: str | None
    priority: int


def read_generation_request(path: str, body: bytes, behaviour: Behaviour) -> GenerationRequest:
    """Decode the request.

    Raises:
        msgspec.MsgspecError: the body is invalid for the route.
        ValueError: prompt and answer do not fit into the model's context.
    """
    request: ChatCompletionRequest | CompletionRequest
    max_model_len = behaviour.max_model_len
    if path.endswith("/chat/completions"):
        request = msgspec.json.decode(body, type=ChatCompletionRequest)
        rendered = render(
            request.messages,
            add_generation_prompt=request.add_generation_prompt,
            continue_final_message=request.continue_final_message,
            template=behaviour.template,
            thinks=request.chat_template_kwargs.get("enable_thinking") is not False,
        )
        ids = encode(rendered, marked=behaviour.marked)
        answer_tokens = request.max_completion_tokens or request.max_tokens or max_model_len - len(ids)
        top = request.top_logprobs if request.logprobs else None
    else:
        request = msgspec.json.decode(body, type=CompletionRequest)
        ids = encode(request.prompt) if isinstance(request.prompt, str) else list(request.prompt)
        answer_tokens = request.max_tokens or max_model_len - len(ids)
        top = request.logprobs
    if len(ids) + answer_tokens > max_model_len or not ids:
        raise ValueError(
            f"This model's maximum context length is {max_model_len} tokens. However, your request has {len(ids)} "
            f"input tokens and asks for {answer_tokens} output tokens."
        )
    stop = request.stop or ()
    if isinstance(stop, str):
        stop = (stop,)
    options = request.stream_options
    return GenerationRequest(
        chat=isinstance(request, ChatCompletionRequest),
        prompt_ids=ids,
        max_tokens=answer_tokens,
        stop=stop,
        stream=request.stream,
        top_logprobs=top,
        token_ids=request.return_token_ids and not behaviour.keeps_ids,
        parses=behaviour.parses,
        begins_with_thinking=behaviour.template == "opening",
        usage=options is not None and options.include_usage,
        cache_salt=request.cache_salt,
        priority=request.priority,
    )


class ReplyEncoder:
    """Encodes tokens as a reply: with `opening`, `feed` and `closing` if streamed, else with `feed` and `body`."""

    def __init__(self, request: GenerationRequest, *, model: str, cached_tokens: int, now: int) -> None:
        self._request = request
        self._model = model
        self._cached = cached_tokens
        self._now = now
        self._id = f"{'chatcmpl' if request.chat else 'cmpl'}-{uuid4().hex}"
        self._tokens: list[GeneratedToken] = []
        self._is_thinking = request.begins_with_thinking and request.parses

    def opening(self) -> bytes:
        """Return the first chunk of a chat stream, with the role and the prompt's ids; empty for completions."""
        if not self._request.chat:
            return b""
        ids = list(self._request.prompt_ids) if self._request.token_ids else UNSET
        return self._chunk([Choice(delta=ChatMessage("", "assistant"))], prompt_token_ids=ids)

    def feed(self, token: GeneratedToken) -> bytes:
        """Return the chunk for one token."""
        self._tokens.append(token)
        choice = Choice(
            text=UNSET if self._request.chat else token.text,
            delta=self._delta(token.text) if self._request.chat else UNSET,
            logprobs=self._logprobs([token]),
            finish_reason=token.finish_reason,
            token_ids=[token.token] if self._request.token_ids else None,
        )
        return self._chunk([choice])

    def _delta(self, text: str) -> ChatMessage:
        """Return a chat delta; if the server parses thinking, put it in `reasoning`, without markers."""
        if not self._request.parses:
            return ChatMessage(text)
        opening, closing = MARKERS
        _, marker, after = text.partition(closing if self._is_thinking else opening)
        if marker:
            self._is_thinking = not self._is_thinking
            text = after
        return ChatMessage(reasoning=text) if self._is_thinking else ChatMessage(text)

    def closing(self) -> bytes:
        """Return the usage chunk, if requested, and the end mark."""
        usage = b""
        if self._request.usage:
            usage = _data(self._reply([], usage=self._usage()))
        return usage + b"data: [DONE]\n\n"

    def body(self) -> bytes:
        """Return the body of a non-streamed reply."""
        text = "".join(token.text for token in self._tokens)
        choice = Choice(
            text=UNSET if self._request.chat else text,
            message=ChatMessage(text, "assistant") if self._request.chat else UNSET,
            logprobs=self._logprobs(self._tokens),
            finish_reason=self._tokens[-1].finish_reason,
            token_ids=[token.token for token in self._tokens] if self._request.token_ids else None,
        )
        ids = list(self._request.prompt_ids) if self._request.chat and self._request.token_ids else UNSET
        return msgspec.json.encode(self._reply([choice], usage=self._usage(), prompt_token_ids=ids))

    def _chunk(self, choices: list[Choice], prompt_token_ids: list[int] | msgspec.UnsetType = UNSET) -> bytes:
        return _data(self._reply(choices, usage=UNSET, prompt_token_ids=prompt_token_ids))

    def _reply(
        self,
        choices: list[Choice],
        *,
        usage: Usage | msgspec.UnsetType,
        prompt_token_ids: list[int] | msgspec.UnsetType = UNSET,
    ) -> Reply:
        kind = "chat.completion" if self._request.chat else "text_completion"
        chunked = ".chunk" if self._request.chat and self._request.stream else ""
        return Reply(
            id=self._id,
            object=kind + chunked,
            created=self._now,
            model=self._model,
            choices=choices,
            usage=usage,
            prompt_token_ids=prompt_token_ids,
        )

    def _usage(self) -> Usage:
        prompt, answer = len(self._request.prompt_ids), len(self._tokens)
        return Usage(prompt, answer, prompt + answer, PromptTokensDetails(self._cached))

    def _logprobs(self, tokens: Sequence[GeneratedToken]) -> ChatLogprobs | None:
        """Return the log probabilities of the tokens if a chat request asks for them; completions carry none."""
        if self._request.top_logprobs is None or not self._request.chat:
            return None
        return ChatLogprobs([self._logprob(token) for token in tokens])

    def _logprob(self, token: GeneratedToken) -> TokenLogprob:
        likely = sorted(token.probabilities.items(), key=lambda pair: -pair[1])[: self._request.top_logprobs or 1]
        top = [TopLogprob(text, math.log(max(share, 1e-9)), list(text.encode())) for text, share in likely]
        return TokenLogprob(token.text, top[0].logprob, list(token.text.encode()), top)


def _data(reply: Reply) -> bytes:
    return b"data: " + msgspec.json.encode(reply) + b"\n\n"
