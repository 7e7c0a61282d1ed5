"""Whether an endpoint's tokens are ours: compared before its first call, and again whenever its breaker was open.

The tokens of an endpoint without token ids cannot be compared. It is asked one word, as every question asks it.
"""

import time
from contextlib import aclosing

import anyio

from chatbot.models.completion import Sampling
from chatbot.models.endpoint import (
    METADATA_SECONDS,
    AccessDenied,
    GenerationRequest,
    OutputLimitReached,
    RequestRejected,
    WrongModel,
)
from chatbot.models.pool import Member
from chatbot.tokenizer import Message, Tokenizer

# Of an answer to one word; a model that thinks refuses fewer.
_WORD_TOKENS = 16
_SAMPLES = (
    "정기예금을 중도해지하면 기본이율의 50%만 적용됩니다. 예금자보호 한도는 1억원입니다.",
    "Early withdrawal costs 1,000,000 won (0.5%);\n\n  see  section 3.2 -- it's final. 谢谢 🙂 e\u0301",
    "\u1100\u1161\u11a8\u1100\u1161\u11a8 ㄱㅏㄱ 각각 \u00e9t\u00e9 👩‍👩‍👧 "
    "½ Ⅳ ０１２ 12345678901 \t\t    x\r\n \u3000 \u00a0y",
)


async def check_tokenizer(member: Member, primaries: Tokenizer, *, seconds: float = METADATA_SECONDS) -> None:
    """Compare the endpoint's token ids with ours, unless that was done since its breaker was last open.

    One that has none is asked one word within these seconds.

    Raises:
        WrongModel: the ids differ.
        EndpointFailed: it cannot be asked, or refuses us.
    """
    if member.tokenizer_checked:
        return
    endpoint, tokenizer = member.endpoint, member.tokenizer or primaries
    card = await endpoint.model_card()
    chat = [Message("system", _SAMPLES[0]), Message("user", _SAMPLES[1])]
    messages = [{"role": message.role, "content": message.content} for message in chat]
    now = time.time()
    on_any_day = [tokenizer.render(chat, at=now + day * 86_400) for day in (0, -1, 1)]  # its zone may be another
    comparisons: list[tuple[dict[str, object], list[list[int]]]] = [
        *(({"prompt": text, "add_special_tokens": False}, [tokenizer.encode(text)]) for text in _SAMPLES),
        ({"messages": messages, "add_generation_prompt": True} | _template_kwargs(tokenizer), on_any_day),
    ]
    for body, ours in comparisons if endpoint.has_token_ids else ():
        if await endpoint.tokenize(body) not in ours:
            part = "chat template" if "messages" in body else "tokenizer"
            raise WrongModel(
                f"the {part} of {card.id} at {endpoint.name} is not the one in the tokenizer's folder: "
                "set LLM_TOKENIZER (or `tokenizer` in MODELS_FILE) to the folder of the served model"
            )
    if not endpoint.has_token_ids:
        await try_out(member, primaries, seconds)
    member.context_tokens = card.max_model_len or member.context_tokens  # a gateway may keep it back
    member.tokenizer_checked = True


async def try_out(member: Member, primaries: Tokenizer, seconds: float) -> None:
    """Ask an endpoint one word, as every question asks it.

    Raises:
        AccessDenied: it refuses what every question sends.
        EndpointFailed: it does not answer, or does not say that its answer is whole.
    """
    request = one_word(member.tokenizer or primaries, Sampling(max_tokens=_WORD_TOKENS), seconds)
    try:
        async with aclosing(member.endpoint.stream(request)) as pieces:
            async for _ in pieces:  # to its end: there are servers whose answers have none that can be told
                pass
    except OutputLimitReached:
        return
    except RequestRejected as exc:
        raise AccessDenied(f"{exc}, of one word: see `omit`, `length_field` and `extra_body` of its entry") from exc


def one_word(tokenizer: Tokenizer, sampling: Sampling, seconds: float) -> GenerationRequest:
    """Return the request for the answer to one word, within these seconds."""
    chat = (Message("user", "ping"),)
    return GenerationRequest(
        prompt_ids=tokenizer.render(chat),
        sampling=sampling,
        cache_salt="",
        priority=0,
        end_ids=tokenizer.end_ids,
        until=anyio.current_time() + seconds,
        messages=chat,
    )


def _template_kwargs(tokenizer: Tokenizer) -> dict[str, object]:
    return {"chat_template_kwargs": tokenizer.template_kwargs} if tokenizer.template_kwargs else {}
