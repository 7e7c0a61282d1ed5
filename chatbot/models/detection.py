"""Detect an endpoint's capabilities by a one-word question in the form of every question, and by its tokenizer."""

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import anyio
import structlog

from chatbot.chat import Chat, Message
from chatbot.models.endpoint import (
    FORMS,
    Capabilities,
    Endpoint,
    GenerationRequest,
    Sampling,
    StreamDecoder,
    TokenizerReply,
)
from chatbot.models.thinking import ThinkingFilter, opens_thinking
from chatbot.tokens import SAMPLES, SpecialTokens
from knowledge.model_connection import AccessDenied, EndpointFailed, RequestRejected

log = structlog.get_logger(__name__)

# The deadline of each request: a CPU needs seconds for the 16 tokens of one question. A hung engine misses the earlier
# deadline of the first token.
_SECONDS = 30.0
# The length of the answer to the one-word question; reasoning models reject fewer.
_WORD_TOKENS = 16
_WORD = Chat(messages=(Message("user", "hello"),), tokens=8)
_PREFIX = "The capital of France is the city of"
# OpenAI rejects a request whose thinking used up its tokens with this sentence.
_LIMIT_REACHED = b"model output limit was reached"


async def detect(endpoint: Endpoint) -> None:
    """Detect the endpoint's capabilities.

    Raises:
        AccessDenied: the endpoint rejects all forms of a question.
        EndpointFailed: the endpoint is unavailable, serves another model, or does not mark the end of its answer.
    """
    before = endpoint.able
    context = await endpoint.read_model() or before.context_tokens  # a gateway may hide it
    able = endpoint.able = Capabilities(special=before.special, context_tokens=context)
    try:
        ids = await _try_forms(endpoint)
        await _try_probes(endpoint)
        await _ask_tokenizer(endpoint)
        able.token_ids = await _sends_ids(endpoint, replace(_request(_WORD, 1), ids=ids)) if ids else False
        able.continues_text = not able.token_ids and await _continues_text(endpoint)
        able.counts = able.counts or await _count_by_usage(endpoint)
    except BaseException:
        endpoint.able = before
        raise
    log.info(
        "model_endpoint_checked", endpoint=endpoint.name, model=endpoint.model, lacks=able.lacks, thinks=able.thinks
    )


async def _try_forms(endpoint: Endpoint) -> Sequence[int]:
    """Find the form of a request that the endpoint accepts; return the result of `_ask_word`."""
    for omitted in FORMS:
        endpoint.able.omitted = omitted
        try:
            return await _ask_word(endpoint)
        except RequestRejected as exc:
            refusal = exc
    raise AccessDenied(f"{refusal}, of one word: see `model` and `extra_body` of its entry") from refusal


async def _ask_word(endpoint: Endpoint) -> Sequence[int]:
    """Ask a one-word question; return the token ids of the prompt and the answer's first id, or () if not sent."""
    reply, ids, text, thinks = StreamDecoder(), list[int](), "", False
    try:
        # Read to the end, because some servers never mark the end of an answer.
        async for piece in endpoint.stream(replace(_request(_WORD, _WORD_TOKENS), priority=1), reply):
            ids += piece.token_ids
            thinks, text = thinks or bool(piece.thinking), text + piece.text
    except RequestRejected as exc:
        if _LIMIT_REACHED not in exc.body:
            raise
    in_text = ThinkingFilter()
    thinks_in_text = in_text.feed(text) + in_text.close() != text
    able = endpoint.able
    able.usage, able.thinks, able.opens_thinking = reply.usage is not None, thinks or thinks_in_text, not thinks
    return (*reply.prompt_ids, *ids[:1]) if reply.prompt_ids and ids else ()


async def _try_probes(endpoint: Endpoint) -> None:
    """Detect how many log probabilities the endpoint sends."""
    able = endpoint.able
    for most in (20, 5, 0):
        able.top_logprobs = most
        with suppress(RequestRejected):
            if (await endpoint.top_tokens(_request(replace(_WORD, thinks=False), 1))).certain:
                able.top_logprobs = 0
            return
    able.top_logprobs = None


async def _sends_ids(endpoint: Endpoint, request: GenerationRequest) -> bool:
    try:
        return any([piece.token_ids async for piece in endpoint.stream(request)])
    except EndpointFailed:
        return False


async def _ask_tokenizer(endpoint: Endpoint) -> None:
    """Read the tokenizer and the chat template through vLLM's `/tokenize` and `/tokenizer_info`."""
    able = endpoint.able
    chat = [Message(role, "x") for role in ("system", "user", "assistant", "user")]
    try:
        rendered = await endpoint.tokenize(chat[:2], strings=True)
        longer = await endpoint.tokenize(chat)
        samples = [(await endpoint.tokenize(text)).tokens for text in SAMPLES]
    except EndpointFailed:
        able.opens_thinking = False
        return
    with suppress(EndpointFailed):  # needs `--enable-tokenizer-info-endpoint`
        added = (await endpoint.ask("/tokenizer_info", None, TokenizerReply)).added_tokens_decoder
        able.special = SpecialTokens([token["content"] for token in added.values()])
    markers = able.special.markers
    listed = await endpoint.tokenize("\n".join(markers), strings=True)
    able.special_ids = frozenset(
        token for token, text in zip(listed.tokens, listed.token_strs or (), strict=False) if text in markers
    )
    few, more = (sum(token in able.special_ids for token in reply.tokens) for reply in (rendered, longer))
    able.template_specials = (few, more - few)
    able.opens_thinking = able.opens_thinking and opens_thinking(rendered.token_strs or ())
    able.vocabulary = hashlib.sha256(f"{endpoint.model} {rendered.tokens} {samples}".encode()).hexdigest()[:16]
    able.counts = (*map(len, samples), len(rendered.tokens))
    able.tokenize = True


async def _continues_text(endpoint: Endpoint) -> bool:
    """Return whether a partial answer is continued, and not answered: its prompt then has fewer tokens."""
    continuation = _request(_WORD, 1)
    answered = Chat(messages=(*_WORD.messages, Message("assistant", _PREFIX)), tokens=_WORD.tokens)
    continued = await _prompt_tokens(endpoint, replace(continuation, prefix=_PREFIX))
    return 0 < continued < await _prompt_tokens(endpoint, replace(continuation, chat=answered))


async def _count_by_usage(endpoint: Endpoint) -> Sequence[int]:
    """Return the token counts of `SAMPLES` and of a chat of two messages from the reported usage, or ()."""
    counts: list[int] = []
    for text in ("x", *SAMPLES):
        chat = Chat(messages=(Message("system", "x"), Message("user", text)), tokens=_WORD.tokens, thinks=False)
        counts.append(await _prompt_tokens(endpoint, _request(chat, 1)))
    template, *samples = counts
    return (*(count - template + 1 for count in samples), template) if min(samples) > template > 0 else ()


async def _prompt_tokens(endpoint: Endpoint, request: GenerationRequest) -> int:
    """Return the prompt's token count from the reported usage; 0 if the request fails or usage is not reported."""
    try:
        return (await endpoint.top_tokens(request)).usage.prompt_tokens
    except EndpointFailed:
        return 0


def _request(chat: Chat, tokens: int) -> GenerationRequest:
    until = anyio.current_time() + _SECONDS
    return GenerationRequest(chat=chat, sampling=Sampling(max_tokens=tokens), cache_salt="none", until=until)
