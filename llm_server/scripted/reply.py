"""The frames and bodies in which the scripted server's answers travel, field by field as vLLM 0.32 sends them. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import uuid4

import msgspec

from llm_server.scripted.speech import Step, encode, render
from llm_server.scripted.wire import (
    Cached,
    ChatAsking,
    ChatLogprobs,
    ChatMessage,
    Choice,
    CompletionAsking,
    CompletionLogprobs,
    Reply,
    TokenLogprob,
    TopLogprob,
    Usage,
)

UNSET = msgspec.UNSET


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """A request of either route, read: what to say it about and how to send it."""

    chat: bool
    prompt_ids: Sequence[int]
    max_tokens: int
    stop: tuple[str, ...]
    stream: bool
    top_logprobs: int | None
    token_ids: bool
    logprobs_by_id: bool
    usage: bool
    usage_always: bool
    cache_salt: str | None
    priority: int


def read_generation(path: str, body: bytes, max_model_len: int) -> Generation:
    """Return the request.

    Raises:
        msgspec.MsgspecError: the body is not what the route takes.
        ValueError: prompt and answer do not fit into the model.
    """
    asked: ChatAsking | CompletionAsking
    if path.endswith("/chat/completions"):
        asked = msgspec.json.decode(body, type=ChatAsking)
        ids = encode(
            render(
                asked.messages,
                add_generation_prompt=asked.add_generation_prompt,
                continue_final_message=asked.continue_final_message,
            )
        )
        wanted = asked.max_completion_tokens or asked.max_tokens or max_model_len - len(ids)
        top = asked.top_logprobs if asked.logprobs else None
    else:
        asked = msgspec.json.decode(body, type=CompletionAsking)
        ids = encode(asked.prompt) if isinstance(asked.prompt, str) else list(asked.prompt)
        wanted = asked.max_tokens or max_model_len - len(ids)
        top = asked.logprobs
    if len(ids) + wanted > max_model_len or not ids:
        raise ValueError(
            f"This model's maximum context length is {max_model_len} tokens. However, your request has {len(ids)} "
            f"input tokens and asks for {wanted} output tokens."
        )
    options = asked.stream_options
    return Generation(
        chat=isinstance(asked, ChatAsking),
        prompt_ids=ids,
        max_tokens=wanted,
        stop=(asked.stop,) if isinstance(asked.stop, str) else asked.stop or (),
        stream=asked.stream,
        top_logprobs=top,
        token_ids=asked.return_token_ids,
        logprobs_by_id=asked.return_tokens_as_token_ids,
        usage=options is not None and options.include_usage,
        usage_always=options is not None and options.include_usage and options.continuous_usage_stats,
        cache_salt=asked.cache_salt,
        priority=asked.priority,
    )


class Frames:
    """Turns steps into the reply: `opening`, `feed` and `closing` for a stream, `feed` and `whole` without."""

    def __init__(self, asked: Generation, *, model: str, cached_tokens: int, now: int) -> None:
        self._asked = asked
        self._model = model
        self._cached = cached_tokens
        self._now = now
        self._id = f"{'chatcmpl' if asked.chat else 'cmpl'}-{uuid4().hex}"
        self._steps: list[Step] = []

    def opening(self) -> bytes:
        """Return the chunk that opens a chat stream with the role and the prompt's ids; completions have none."""
        if not self._asked.chat:
            return b""
        ids = list(self._asked.prompt_ids) if self._asked.token_ids else UNSET
        return self._frame([Choice(delta=ChatMessage("", "assistant"))], prompt_token_ids=ids)

    def feed(self, step: Step) -> bytes:
        """Return the chunk of one token."""
        self._steps.append(step)
        choice = Choice(
            text=UNSET if self._asked.chat else step.text,
            delta=ChatMessage(step.text) if self._asked.chat else UNSET,
            logprobs=self._logprobs([step]),
            finish_reason=step.finish_reason,
            token_ids=[step.token] if self._asked.token_ids else None,
            prompt_token_ids=self._first_ids() if len(self._steps) == 1 else UNSET,
        )
        return self._frame([choice])

    def closing(self) -> bytes:
        """Return the usage chunk, where asked for, and the end mark."""
        usage = b""
        if self._asked.usage:
            usage = _data(self._reply([], usage=self._usage(details=True)))
        return usage + b"data: [DONE]\n\n"

    def whole(self) -> bytes:
        """Return the body of a reply that is not streamed."""
        text = "".join(step.text for step in self._steps)
        choice = Choice(
            text=UNSET if self._asked.chat else text,
            message=ChatMessage(text, "assistant") if self._asked.chat else UNSET,
            logprobs=self._logprobs(self._steps),
            finish_reason=self._steps[-1].finish_reason,
            token_ids=[step.token for step in self._steps] if self._asked.token_ids else None,
            prompt_token_ids=self._first_ids(),
        )
        ids = list(self._asked.prompt_ids) if self._asked.chat and self._asked.token_ids else UNSET
        return msgspec.json.encode(self._reply([choice], usage=self._usage(details=True), prompt_token_ids=ids))

    def _first_ids(self) -> list[int] | msgspec.UnsetType | None:
        if self._asked.chat:
            return UNSET
        return list(self._asked.prompt_ids) if self._asked.token_ids else None

    def _frame(self, choices: list[Choice], prompt_token_ids: list[int] | msgspec.UnsetType = UNSET) -> bytes:
        usage = self._usage(details=False) if self._asked.usage_always else UNSET
        return _data(self._reply(choices, usage=usage, prompt_token_ids=prompt_token_ids))

    def _reply(
        self,
        choices: list[Choice],
        *,
        usage: Usage | msgspec.UnsetType,
        prompt_token_ids: list[int] | msgspec.UnsetType = UNSET,
    ) -> Reply:
        kind = "chat.completion" if self._asked.chat else "text_completion"
        chunked = ".chunk" if self._asked.chat and self._asked.stream else ""
        return Reply(
            id=self._id,
            object=kind + chunked,
            created=self._now,
            model=self._model,
            choices=choices,
            usage=usage,
            prompt_token_ids=prompt_token_ids,
        )

    def _usage(self, *, details: bool) -> Usage:
        prompt, answer = len(self._asked.prompt_ids), len(self._steps)
        return Usage(prompt, answer, prompt + answer, Cached(self._cached) if details else None)

    def _logprobs(self, steps: Sequence[Step]) -> CompletionLogprobs | ChatLogprobs | None:
        if self._asked.top_logprobs is None:
            return None
        tops = [self._top(step) for step in steps]
        names = [self._name(step.text or "") for step in steps]
        own = [max(top.values()) for top in tops]
        if not self._asked.chat:
            offsets = [sum(len(before.text) for before in steps[:n]) for n in range(len(steps))]
            return CompletionLogprobs(offsets, own, names, tops)
        return ChatLogprobs(
            [
                TokenLogprob(
                    name, chance, list(name.encode()), [TopLogprob(t, p, list(t.encode())) for t, p in top.items()]
                )
                for name, chance, top in zip(names, own, tops, strict=True)
            ]
        )

    def _top(self, step: Step) -> dict[str, float]:
        likely = sorted(step.chances.items(), key=lambda pair: -pair[1])[: self._asked.top_logprobs or 1]
        return {self._name(token): math.log(max(chance, 1e-9)) for token, chance in likely}

    def _name(self, token: str) -> str:
        ids = encode(token) if self._asked.logprobs_by_id else []
        return f"token_id:{ids[0]}" if ids else token


def _data(reply: Reply) -> bytes:
    return b"data: " + msgspec.json.encode(reply) + b"\n\n"
