"""Detect an endpoint's capabilities by a one-word question, sent like customers' questions, and by its tokenizer."""

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

# The deadline of each request: a CPU without AVX-512 needs 17 s for the 16 tokens of one question. A hung engine
# misses the earlier deadline of the first token.
_SECONDS = 90.0
# The most tokens of the answer to the one-word question; reasoning models reject a lower limit.
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
    before = endpoint.capabilities
    context_tokens = await endpoint.read_model() or before.context_tokens  # a gateway may hide the length
    capabilities = Capabilities(special_tokens=before.special_tokens, context_tokens=context_tokens)
    endpoint.capabilities = capabilities
    try:
        ids = await _try_forms(endpoint)
        await _try_log_probabilities(endpoint)
        await _ask_tokenizer(endpoint)
        if ids:
            capabilities.token_ids = await _sends_ids(endpoint, replace(_request(_WORD, 1), ids=ids))
        if not capabilities.token_ids:
            capabilities.continues_text = await _continues_text(endpoint)
        if not capabilities.counts:
            capabilities.counts = await _count_by_usage(endpoint)
    except BaseException:
        endpoint.capabilities = before
        raise
    log.info(
        "model_endpoint_checked",
        endpoint=endpoint.name,
        model=endpoint.model,
        missing=capabilities.missing,
        thinks=capabilities.thinks,
    )


async def _try_forms(endpoint: Endpoint) -> Sequence[int]:
    """Set the first form of a request that the endpoint accepts; return the ids of `_ask_word`."""
    for omitted in FORMS:
        endpoint.capabilities.omitted = omitted
        try:
            return await _ask_word(endpoint)
        except RequestRejected as exc:
            refusal = exc
    raise AccessDenied(f"{refusal}, even of one word: see `model` and `extra_body` of its entry") from refusal


async def _ask_word(endpoint: Endpoint) -> Sequence[int]:
    """Ask a one-word question, and set what the reply shows about usage and thinking.

    Return the prompt's token ids and the answer's first id, or () if the endpoint sends no ids.
    """
    reply, ids, text, sends_thinking = StreamDecoder(), list[int](), "", False
    try:
        # Read to the end, because some servers never mark the end of an answer.
        async for piece in endpoint.stream(replace(_request(_WORD, _WORD_TOKENS), priority=1), reply):
            ids += piece.token_ids
            text += piece.text
            sends_thinking = sends_thinking or piece.thinking != ""
    except RequestRejected as exc:
        if _LIMIT_REACHED not in exc.body:
            raise
    thinking_filter = ThinkingFilter()
    has_thinking_in_text = thinking_filter.feed(text) + thinking_filter.close() != text
    capabilities = endpoint.capabilities
    capabilities.usage = reply.usage is not None
    capabilities.thinks = sends_thinking or has_thinking_in_text
    capabilities.opens_thinking = not sends_thinking
    return (*reply.prompt_ids, *ids[:1]) if reply.prompt_ids and ids else ()


async def _try_log_probabilities(endpoint: Endpoint) -> None:
    """Detect how many log probabilities the endpoint sends."""
    capabilities = endpoint.capabilities
    for most in (20, 5, 0):
        capabilities.top_logprobs = most
        with suppress(RequestRejected):
            if (await endpoint.top_tokens(_request(replace(_WORD, thinks=False), 1))).certain:
                capabilities.top_logprobs = 0
            return
    capabilities.top_logprobs = None


async def _sends_ids(endpoint: Endpoint, request: GenerationRequest) -> bool:
    """Return whether the endpoint continues after token ids, and sends the ids of its answer."""
    try:
        return any([piece.token_ids async for piece in endpoint.stream(request)])
    except EndpointFailed:
        return False


async def _ask_tokenizer(endpoint: Endpoint) -> None:
    """Read the tokenizer and the chat template through vLLM's `/tokenize` and `/tokenizer_info`."""
    capabilities = endpoint.capabilities
    two_exchanges = [Message(role, "x") for role in ("system", "user", "assistant", "user")]
    try:
        short_prompt = await endpoint.tokenize(two_exchanges[:2], with_strings=True)
        long_prompt = await endpoint.tokenize(two_exchanges)
        samples = [(await endpoint.tokenize(text)).tokens for text in SAMPLES]
    except EndpointFailed:
        capabilities.opens_thinking = False
        return
    with suppress(EndpointFailed):  # needs `--enable-tokenizer-info-endpoint`
        added_tokens = (await endpoint.ask("/tokenizer_info", None, TokenizerReply)).added_tokens_decoder
        capabilities.special_tokens = SpecialTokens([token["content"] for token in added_tokens.values()])
    markers = capabilities.special_tokens.markers
    tokenized = await endpoint.tokenize("\n".join(markers), with_strings=True)
    texts_of_ids = zip(tokenized.tokens, tokenized.token_strs or (), strict=False)
    capabilities.special_ids = frozenset(token for token, text in texts_of_ids if text in markers)
    in_short = sum(token in capabilities.special_ids for token in short_prompt.tokens)
    in_long = sum(token in capabilities.special_ids for token in long_prompt.tokens)
    capabilities.template_specials = (in_short, in_long - in_short)
    capabilities.opens_thinking = capabilities.opens_thinking and opens_thinking(short_prompt.token_strs or ())
    identity = f"{endpoint.model} {short_prompt.tokens} {samples}"
    capabilities.vocabulary = hashlib.sha256(identity.encode()).hexdigest()[:16]
    capabilities.counts = (*map(len, samples), len(short_prompt.tokens))
    capabilities.tokenize = True


async def _continues_text(endpoint: Endpoint) -> bool:
    """Return whether the endpoint continues a partial answer."""
    request = _request(_WORD, 1)
    answered_chat = Chat(messages=(*_WORD.messages, Message("assistant", _PREFIX)), tokens=_WORD.tokens)
    tokens_to_continue = await _prompt_tokens(endpoint, replace(request, prefix=_PREFIX))
    if tokens_to_continue == 0:
        return False
    # If the endpoint continues `_PREFIX`, the prompt has fewer tokens than with the same text as a complete answer.
    return tokens_to_continue < await _prompt_tokens(endpoint, replace(request, chat=answered_chat))


async def _count_by_usage(endpoint: Endpoint) -> Sequence[int]:
    """Return `Capabilities.counts` from the reported usage, or () if it is not reported."""
    counts: list[int] = []
    for text in ("x", *SAMPLES):
        chat = Chat(messages=(Message("system", "x"), Message("user", text)), tokens=_WORD.tokens, thinks=False)
        counts.append(await _prompt_tokens(endpoint, _request(chat, 1)))
    template, *samples = counts
    if not min(samples) > template > 0:
        return ()
    return (*(count - template + 1 for count in samples), template)  # "x" counts as one token


async def _prompt_tokens(endpoint: Endpoint, request: GenerationRequest) -> int:
    """Return the prompt's token count from the reported usage; 0 if the request fails or no usage is reported."""
    try:
        return (await endpoint.top_tokens(request)).usage.prompt_tokens
    except EndpointFailed:
        return 0


def _request(chat: Chat, tokens: int) -> GenerationRequest:
    until = anyio.current_time() + _SECONDS
    return GenerationRequest(chat=chat, sampling=Sampling(max_tokens=tokens), cache_salt="none", until=until)
