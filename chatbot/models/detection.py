"""Finds the capabilities of an endpoint by asking it one word, as every question is asked; and asks its tokenizer."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import anyio
import structlog

from chatbot.chat import Chat, Message
from chatbot.models.capabilities import Capabilities
from chatbot.models.endpoint import Endpoint, GenerationEnd, GenerationRequest, OutputLimitReached, PromptIds
from chatbot.models.thinking import ThinkingFilter, opens_thinking
from chatbot.models.wire import DetokenizeReply, Sampling, Thought, TokenizeReply, TokenizerInfo
from chatbot.tokens import SAMPLES, SpecialTokens, TokenCounter
from knowledge.model_connection import AccessDenied, EndpointFailed, RequestRejected

log = structlog.get_logger(__name__)

# Of an answer to one word; a model that thinks refuses fewer.
_WORD_TOKENS = 16
_WORD = Chat(messages=(Message("user", "hello"),), tokens=8)
_BEGUN = "The capital of France is the city of"


async def detect(endpoint: Endpoint, *, seconds: float) -> None:
    """Ask the endpoint one word, as every question is asked, within these seconds, and set its capabilities.

    Raises:
        AccessDenied: it refuses what every question sends.
        EndpointFailed: it cannot be asked, serves another model, or does not say that its answer is whole.
    """
    before = endpoint.capabilities
    card = await endpoint.model_card()
    endpoint.capabilities = Capabilities(
        special=before.special,
        context_tokens=card.max_model_len or before.context_tokens,  # a gateway may keep it back
    )
    try:
        await _detect(endpoint, seconds)
    except BaseException:
        endpoint.capabilities = before
        raise
    able = endpoint.capabilities
    log.info(
        "model_endpoint_checked", endpoint=endpoint.name, model=endpoint.model, lacks=able.lacks, thinks=able.thinks
    )


async def _detect(endpoint: Endpoint, seconds: float) -> None:
    prompt_ids, answer_ids = await _try_out(endpoint, seconds)
    await _try_probe(endpoint, seconds)
    await _ask_tokenizer(endpoint)
    if prompt_ids and answer_ids:
        able = await _continues_ids(endpoint, (*prompt_ids, answer_ids[0]), seconds)
        endpoint.capabilities = replace(endpoint.capabilities, token_ids=able)
    if not endpoint.capabilities.token_ids:
        able = await _continues_text(endpoint, seconds)
        endpoint.capabilities = replace(endpoint.capabilities, continues_text=able)
    if not endpoint.capabilities.tokenize:
        counts = await _count_by_usage(endpoint, seconds)
        endpoint.capabilities = replace(endpoint.capabilities, counts=counts)


async def _try_out(endpoint: Endpoint, seconds: float) -> tuple[Sequence[int], list[int]]:
    """Ask for an answer to one word; return the ids of prompt and answer, where it sends them."""
    while True:
        prompt_ids: Sequence[int] = ()
        answer_ids: list[int] = []
        usage, text, thinks = False, "", False
        # It is not known yet whether the server sends ids: they are looked for.
        endpoint.capabilities = replace(endpoint.capabilities, token_ids=True)
        try:
            async for part in endpoint.stream(_request(_WORD, _WORD_TOKENS, seconds, priority=1)):
                if isinstance(part, PromptIds):
                    prompt_ids = part.ids
                elif isinstance(part, GenerationEnd):  # to its end: some servers never say that an answer is whole
                    usage = part.usage is not None
                else:
                    answer_ids += part.token_ids
                    thinks, text = thinks or isinstance(part, Thought), text + getattr(part, "text", "")
        except OutputLimitReached:
            break
        except RequestRejected as exc:
            _omit_refused(endpoint, exc)
        else:
            break
    in_text = ThinkingFilter()
    thinks_in_text = in_text.feed(text) + in_text.close() != text
    able = replace(endpoint.capabilities, token_ids=False, usage=usage, thinks=thinks or thinks_in_text)
    endpoint.capabilities = replace(able, opens_thinking=not thinks)  # until the template is known
    return prompt_ids, answer_ids


async def _try_probe(endpoint: Endpoint, seconds: float) -> None:
    probe = replace(_WORD, thinks=False)
    while endpoint.capabilities.probes:
        try:
            top = await endpoint.top_tokens(_request(probe, 1, seconds))
        except RequestRejected as exc:
            try:
                _omit_refused(endpoint, exc)
            except AccessDenied:
                endpoint.capabilities = replace(endpoint.capabilities, probes=False)
        else:
            endpoint.capabilities = replace(endpoint.capabilities, logprobs=not top.certain)
            return


def _omit_refused(endpoint: Endpoint, exc: RequestRejected) -> None:
    able = endpoint.capabilities.without(exc.body)
    if able == endpoint.capabilities:
        raise AccessDenied(f"{exc}, of one word: see `model` and `extra_body` of its entry") from exc
    endpoint.capabilities = able


async def _ask_tokenizer(endpoint: Endpoint) -> None:
    """Read what vLLM's `/tokenize` and `/tokenizer_info` say of tokenizer and template."""
    able = endpoint.capabilities
    chat = [{"role": role, "content": "x"} for role in ("system", "user", "assistant", "user")]
    try:
        rendered = await endpoint.ask("/tokenize", {"messages": chat[:2], "return_token_strs": True}, TokenizeReply)
        longer = await endpoint.ask("/tokenize", {"messages": chat}, TokenizeReply)
        samples = [
            (await endpoint.ask("/tokenize", {"prompt": text, "add_special_tokens": False}, TokenizeReply)).tokens
            for text in SAMPLES
        ]
    except EndpointFailed:
        endpoint.capabilities = replace(able, tokenize=False, opens_thinking=False)
        return
    special = SpecialTokens(able.special.markers)
    try:
        info = await endpoint.ask("/tokenizer_info", None, TokenizerInfo)
        special = SpecialTokens([token.content for token in info.added_tokens_decoder.values()])
    except EndpointFailed:  # it is served only where `--enable-tokenizer-info-endpoint` says so
        pass
    listed = {"prompt": "\n".join(special.markers), "add_special_tokens": False, "return_token_strs": True}
    tokens = await endpoint.ask("/tokenize", listed, TokenizeReply)
    known = frozenset(special.markers)
    ids = {token for token, text in zip(tokens.tokens, tokens.token_strs or (), strict=False) if text in known}
    few, more = (sum(token in ids for token in reply.tokens) for reply in (rendered, longer))
    digest = hashlib.sha256(f"{endpoint.model} {rendered.tokens} {samples}".encode())
    endpoint.capabilities = replace(
        able,
        tokenize=True,
        opens_thinking=able.opens_thinking and opens_thinking(rendered.token_strs or ()),
        special=special,
        special_ids=frozenset(ids),
        template_specials=(few, more - few),
        vocabulary=digest.hexdigest()[:16],
        counts=(*map(len, samples), len(rendered.tokens)),
    )


async def _continues_ids(endpoint: Endpoint, ids: Sequence[int], seconds: float) -> bool:
    request = replace(_request(_WORD, 1, seconds), ids=ids)
    try:
        return any([getattr(part, "token_ids", ()) async for part in endpoint.stream(request)])
    except EndpointFailed:
        return False


async def _continues_text(endpoint: Endpoint, seconds: float) -> bool:
    """Return whether a begun answer's text is continued, and not answered: its prompt has fewer tokens then."""
    begun = _request(_WORD, 1, seconds)
    answered = Chat(messages=(*_WORD.messages, Message("assistant", _BEGUN)), tokens=_WORD.tokens)
    try:
        continued = await endpoint.top_tokens(replace(begun, begun_text=_BEGUN))
        as_history = await endpoint.top_tokens(replace(begun, chat=answered))
    except EndpointFailed:
        return False
    return 0 < continued.usage.prompt_tokens < as_history.usage.prompt_tokens


async def _count_by_usage(endpoint: Endpoint, seconds: float) -> tuple[int, ...]:
    """Return the server's counts of `SAMPLES` and of a chat of two messages, by the usage that it reports."""
    counts: list[int] = []
    for text in ("x", *SAMPLES):
        chat = Chat(messages=(Message("system", "x"), Message("user", text)), tokens=_WORD.tokens, thinks=False)
        try:
            counts.append((await endpoint.top_tokens(_request(chat, 1, seconds))).usage.prompt_tokens)
        except EndpointFailed:
            return ()
    template, *samples = counts
    return (*(count - template + 1 for count in samples), template) if min(samples) > template > 0 else ()


async def rendered_ids(endpoint: Endpoint, messages: Sequence[Message], *, seconds: float) -> Sequence[int]:
    """Return the ids of the messages as the server renders them.

    Raises:
        EndpointFailed: it cannot be asked.
    """
    neutralise = endpoint.capabilities.special.neutralise
    chat = [{"role": message.role, "content": neutralise(message.content)} for message in messages]
    return (await endpoint.ask("/tokenize", {"messages": chat}, TokenizeReply, seconds=seconds)).tokens


async def text_of(endpoint: Endpoint, ids: Sequence[int], *, seconds: float) -> str:
    """Return the text of token ids, by vLLM's `/detokenize`.

    Raises:
        EndpointFailed: it cannot be asked.
    """
    return (await endpoint.ask("/detokenize", {"tokens": list(ids)}, DetokenizeReply, seconds=seconds)).prompt


def calibrate(counter: TokenCounter, able: Capabilities) -> None:
    """Set a counter's ratios by an endpoint's own counts, if it has any."""
    if len(able.counts) == len(SAMPLES) + 1:
        *samples, template = able.counts
        counter.calibrate(samples)
        counter.template_tokens = max(1, -(-(template - 2) // 3))


def word_request(seconds: float) -> GenerationRequest:
    """Return the request for one token of an answer to one word, within these seconds."""
    return _request(Chat(messages=(Message("user", "ping"),), tokens=8, thinks=False), 1, seconds)


def _request(chat: Chat, tokens: int, seconds: float, *, priority: int = 0) -> GenerationRequest:
    until = anyio.current_time() + seconds
    return GenerationRequest(
        chat=chat, sampling=Sampling(max_tokens=tokens), cache_salt="none", priority=priority, until=until
    )
