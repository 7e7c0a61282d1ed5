"""Detect an endpoint's capabilities by a one-word question in the form of every question, and by its tokenizer."""

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import anyio
import msgspec
import structlog

from chatbot.chat import Chat, Message
from chatbot.models.endpoint import Endpoint, GenerationRequest
from chatbot.models.thinking import ThinkingFilter, opens_thinking
from chatbot.models.wire import FORMS, Capabilities, Sampling, StreamDecoder, TokenizeReply
from chatbot.tokens import SAMPLES, SpecialTokens
from knowledge.model_connection import AccessDenied, EndpointFailed, RequestRejected

log = structlog.get_logger(__name__)

# The length of the answer to the one-word question; reasoning models reject fewer.
_WORD_TOKENS = 16
_WORD = Chat(messages=(Message("user", "hello"),), tokens=8)
_PREFIX = "The capital of France is the city of"
# OpenAI rejects a request whose thinking used up its tokens with this sentence.
_LIMIT_REACHED = b"model output limit was reached"


class _DetokenizeReply(msgspec.Struct, frozen=True):
    prompt: str


class _TokenizerInfo(msgspec.Struct, frozen=True):
    """The reply of vLLM's `/tokenizer_info`, a `tokenizer_config.json`."""

    added_tokens_decoder: dict[str, dict[str, Any]] = {}


async def detect(endpoint: Endpoint, *, seconds: float) -> None:
    """Detect the endpoint's capabilities; each request may take `seconds`.

    Raises:
        AccessDenied: the endpoint rejects all forms of a question.
        EndpointFailed: the endpoint is unavailable, serves another model, or does not mark the end of its answer.
    """
    before = endpoint.capabilities
    card = await endpoint.model_card()
    context = card.max_model_len or before.context_tokens  # a gateway may hide it
    try:
        await _detect(endpoint, seconds, Capabilities(special=before.special, context_tokens=context))
    except BaseException:
        endpoint.capabilities = before
        raise
    able = endpoint.capabilities
    log.info(
        "model_endpoint_checked", endpoint=endpoint.name, model=endpoint.model, lacks=able.lacks, thinks=able.thinks
    )


async def _detect(endpoint: Endpoint, seconds: float, able: Capabilities) -> None:
    ids = await _try_forms(endpoint, seconds, able)
    await _try_probes(endpoint, seconds)
    await _ask_tokenizer(endpoint)
    if ids and await _sends_ids(endpoint, replace(_request(_WORD, 1, seconds), ids=ids)):
        endpoint.learn(token_ids=True)
    else:
        endpoint.learn(continues_text=await _continues_text(endpoint, seconds))
    if not endpoint.capabilities.counts:
        endpoint.learn(counts=await _count_by_usage(endpoint, seconds))


async def _try_forms(endpoint: Endpoint, seconds: float, able: Capabilities) -> Sequence[int]:
    """Find the form of a request that the endpoint accepts; return the result of `_ask_word`."""
    for omitted in FORMS:
        endpoint.capabilities = replace(able, omitted=omitted)
        try:
            return await _ask_word(endpoint, seconds)
        except RequestRejected as exc:
            refusal = exc
    raise AccessDenied(f"{refusal}, of one word: see `model` and `extra_body` of its entry") from refusal


async def _ask_word(endpoint: Endpoint, seconds: float) -> Sequence[int]:
    """Ask a one-word question; return the token ids of the prompt and the answer's first id, or () if not sent."""
    reply, ids, text, thinks = StreamDecoder(), list[int](), "", False
    try:
        # Read to the end, because some servers never mark the end of an answer.
        async for piece in endpoint.stream(replace(_request(_WORD, _WORD_TOKENS, seconds), priority=1), reply):
            ids += piece.token_ids
            thinks, text = thinks or bool(piece.thinking), text + piece.text
    except RequestRejected as exc:
        if _LIMIT_REACHED not in exc.body:
            raise
    in_text = ThinkingFilter()
    thinks_in_text = in_text.feed(text) + in_text.close() != text
    endpoint.learn(usage=reply.usage is not None, thinks=thinks or thinks_in_text, opens_thinking=not thinks)
    return (*reply.prompt_ids, *ids[:1]) if reply.prompt_ids and ids else ()


async def _try_probes(endpoint: Endpoint, seconds: float) -> None:
    """Detect how many log probabilities the endpoint sends."""
    for top in (20, 5, 0):
        endpoint.learn(top_logprobs=top)
        try:
            probe = await endpoint.top_tokens(_request(replace(_WORD, thinks=False), 1, seconds))
        except RequestRejected:
            continue
        endpoint.learn(top_logprobs=0 if probe.certain else top)
        return
    endpoint.learn(top_logprobs=None)


async def _sends_ids(endpoint: Endpoint, request: GenerationRequest) -> bool:
    try:
        return any([piece.token_ids async for piece in endpoint.stream(request)])
    except EndpointFailed:
        return False


async def _ask_tokenizer(endpoint: Endpoint) -> None:
    """Read the tokenizer and the chat template through vLLM's `/tokenize` and `/tokenizer_info`."""
    able, special = endpoint.capabilities, endpoint.capabilities.special
    chat = [{"role": role, "content": "x"} for role in ("system", "user", "assistant", "user")]
    try:
        rendered = await endpoint.ask("/tokenize", {"messages": chat[:2], "return_token_strs": True}, TokenizeReply)
        longer = await endpoint.ask("/tokenize", {"messages": chat}, TokenizeReply)
        samples = [(await _tokenized(endpoint, text)).tokens for text in SAMPLES]
    except EndpointFailed:
        endpoint.learn(opens_thinking=False)
        return
    with suppress(EndpointFailed):  # needs `--enable-tokenizer-info-endpoint`
        added = (await endpoint.ask("/tokenizer_info", None, _TokenizerInfo)).added_tokens_decoder
        special = SpecialTokens([token["content"] for token in added.values()])
    listed = await _tokenized(endpoint, "\n".join(special.markers))
    ids = {n for n, text in zip(listed.tokens, listed.token_strs or (), strict=False) if text in special.markers}
    few, more = (sum(token in ids for token in reply.tokens) for reply in (rendered, longer))
    digest = hashlib.sha256(f"{endpoint.model} {rendered.tokens} {samples}".encode())
    endpoint.learn(
        tokenize=True,
        opens_thinking=able.opens_thinking and opens_thinking(rendered.token_strs or ()),
        special=special,
        special_ids=frozenset(ids),
        template_specials=(few, more - few),
        vocabulary=digest.hexdigest()[:16],
        counts=(*map(len, samples), len(rendered.tokens)),
    )


async def _tokenized(endpoint: Endpoint, text: str) -> TokenizeReply:
    body = {"prompt": text, "add_special_tokens": False, "return_token_strs": True}
    return await endpoint.ask("/tokenize", body, TokenizeReply)


async def _continues_text(endpoint: Endpoint, seconds: float) -> bool:
    """Return whether a partial answer is continued, and not answered: its prompt then has fewer tokens."""
    continuation = _request(_WORD, 1, seconds)
    answered = Chat(messages=(*_WORD.messages, Message("assistant", _PREFIX)), tokens=_WORD.tokens)
    continued = await _prompt_tokens(endpoint, replace(continuation, prefix=_PREFIX))
    return 0 < continued < await _prompt_tokens(endpoint, replace(continuation, chat=answered))


async def _count_by_usage(endpoint: Endpoint, seconds: float) -> Sequence[int]:
    """Return the token counts of `SAMPLES` and of a chat of two messages from the reported usage, or ()."""
    counts: list[int] = []
    for text in ("x", *SAMPLES):
        chat = Chat(messages=(Message("system", "x"), Message("user", text)), tokens=_WORD.tokens, thinks=False)
        counts.append(await _prompt_tokens(endpoint, _request(chat, 1, seconds)))
    template, *samples = counts
    return (*(count - template + 1 for count in samples), template) if min(samples) > template > 0 else ()


async def _prompt_tokens(endpoint: Endpoint, request: GenerationRequest) -> int:
    """Return the prompt's token count from the reported usage; 0 if the request fails or usage is not reported."""
    try:
        return (await endpoint.top_tokens(request)).usage.prompt_tokens
    except EndpointFailed:
        return 0


async def rendered_ids(endpoint: Endpoint, messages: Sequence[Message], *, seconds: float) -> Sequence[int]:
    """Return the token ids of the messages as rendered by the server."""
    chat = endpoint.messages(messages)
    return (await endpoint.ask("/tokenize", {"messages": chat}, TokenizeReply, seconds=seconds)).tokens


async def text_of(endpoint: Endpoint, ids: Sequence[int], *, seconds: float) -> str:
    """Return the text of token ids through vLLM's `/detokenize`."""
    return (await endpoint.ask("/detokenize", {"tokens": list(ids)}, _DetokenizeReply, seconds=seconds)).prompt


def word_request(seconds: float) -> GenerationRequest:
    """Return a request for one token in answer to a one-word question, due within `seconds`."""
    return _request(Chat(messages=(Message("user", "ping"),), tokens=8, thinks=False), 1, seconds)


def _request(chat: Chat, tokens: int, seconds: float) -> GenerationRequest:
    until = anyio.current_time() + seconds
    return GenerationRequest(chat=chat, sampling=Sampling(max_tokens=tokens), cache_salt="none", until=until)
