"""Generates the scripted model's answer to one request, token by token (pure, except for the cached tokenizer)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import msgspec
from tokenizers import Tokenizer

from llm_server.scripted.answers import NO, YES, answer_probability, obedient_answer, quoted_answer, read_prompt
from llm_server.scripted.byte_tokenizer import MARKERS, NO_THINKING, Template, byte_tokenizer
from llm_server.scripted.wire import RequestMessage, probe_candidates

START, END = "<|im_start|>", "<|im_end|>"


class Behaviour(msgspec.Struct, frozen=True, kw_only=True):
    """The scripted model's behaviour; every field can be changed while it runs (`POST /script`).

    A fault applies until it is changed, or for the next `times` generations. The fields `…_after` count the tokens of
    each request from zero, also of continuations. `hung` also blocks health checks, like a stopped process; `dead` cuts
    every connection, like a killed one.
    """

    answer: str | None = None  # None: quotes the passages that best match the question
    obeys: bool = False  # answers yes to every probe, and repeats the last user turn
    sentences: int = 2  # the most sentences of a quotation
    thinking: str = ""  # text before the answer, markers included, unless the prompt ends with a closed thinking block
    marked: bool = True  # whether the markers of thinking are single tokens
    parses: bool = True  # chat completions separate the thinking, like vLLM with `--reasoning-parser`
    template: Template = "plain"  # the chat template
    probe: float | None = None  # P(yes) of the answerability probe; None: by overlap with the passages
    first_token_seconds: float = 0.0
    token_seconds: float = 0.0
    slots: int = 256
    queue: int | None = None  # generations that may wait for a slot; further ones get a 503, as in vLLM
    max_model_len: int = 32_768
    plain: bool = False  # only chat completions without vLLM's extensions, like a hosted model
    keeps_ids: bool = False  # sends no token ids
    fail_status: int | None = None  # rejects generations with this HTTP status
    retry_after: int | None = None  # seconds: the `Retry-After` of these errors
    stall_after: int | None = None  # sends nothing more until the behaviour is changed
    drop_after: int | None = None  # cuts the connection
    garble_after: int | None = None  # sends a chunk of invalid JSON
    die_after: int | None = None  # becomes `dead`
    dead: bool = False
    hung: bool = False
    times: int | None = None

    def without_faults(self) -> "Behaviour":
        """Return the same behaviour without its faults."""
        return msgspec.structs.replace(
            self, fail_status=None, stall_after=None, drop_after=None, garble_after=None, die_after=None, times=None
        )

    def after_generation(self) -> "Behaviour":
        """Return the behaviour of the generations after the next one, with `times` counted down."""
        if self.times is None:
            return self
        return msgspec.structs.replace(self, times=self.times - 1) if self.times > 1 else self.without_faults()


@dataclass(frozen=True, slots=True)
class GeneratedToken:
    """One token of an answer, with its text (empty while a character is incomplete) and the most likely tokens."""

    token: int
    text: str
    finish_reason: str | None
    probabilities: dict[str, float]


@cache
def tokenizer(*, marked: bool = True) -> Tokenizer:
    """Return the scripted model's tokenizer, the same as `write_tokenizer` writes."""
    return Tokenizer.from_str(byte_tokenizer(marked=marked).to_json())


def encode(text: str, *, marked: bool = True) -> list[int]:
    """Return the token ids of `text`; ChatML markers, and if `marked` those of thinking, are single tokens."""
    ids: list[int] = tokenizer(marked=marked).encode(text, add_special_tokens=False).ids
    return ids


def decode(ids: Sequence[int]) -> str:
    """Return the text of `ids`, special tokens included."""
    text: str = tokenizer().decode(list(ids), skip_special_tokens=False)
    return text


def render(
    turns: Sequence[RequestMessage],
    *,
    add_generation_prompt: bool = True,
    continue_final_message: bool = False,
    template: Template = "plain",
    thinks: bool = True,
) -> str:
    """Return the ChatML prompt of a chat, exactly as the chat template renders it."""
    text = "".join(f"{START}{turn.role}\n{turn.content}{END}\n" for turn in turns)
    if continue_final_message:
        return text.removesuffix(f"{END}\n")
    if not add_generation_prompt:
        return text
    text += f"{START}assistant\n"
    if template == "switched" and not thinks:
        text += NO_THINKING
    elif template == "opening":
        text += f"{MARKERS[0]}\n"
    return text


def generate(
    prompt_ids: Sequence[int], behaviour: Behaviour, *, max_tokens: int, stop: Sequence[str], probing: bool
) -> Iterator[GeneratedToken]:
    """Yield at most `max_tokens` tokens of the answer; the part in the prompt's assistant turn is not repeated."""
    prompt = decode(prompt_ids)
    prefix_ids = _answer_prefix(prompt_ids)
    thinks = bool(behaviour.thinking) and not decode(prefix_ids).startswith(NO_THINKING)
    if probing and max_tokens == 1:
        yield _thinking_probe() if thinks else _probe(prompt, behaviour)
        return
    text = _answer_text(prompt, behaviour)
    end = min((text.find(word) for word in stop if word in text), default=len(text))
    thinking = NO_THINKING if behaviour.thinking and not thinks else behaviour.thinking
    ids = encode(thinking + text[:end], marked=behaviour.marked)
    if ids[: len(prefix_ids)] == prefix_ids:
        remaining_ids = ids[len(prefix_ids) :]
    else:  # the prefix is from another model, or lacks the thinking
        prefix = decode(prefix_ids).rpartition(MARKERS[1])[2].lstrip()
        is_continued = bool(prefix) and text.startswith(prefix)
        remaining_ids = encode(text[len(prefix) : end]) if is_continued else ids
    yield from _tokens([*remaining_ids, *encode(END)], max_tokens)


def _answer_text(prompt: str, behaviour: Behaviour) -> str:
    if behaviour.answer is not None:
        return behaviour.answer
    return obedient_answer(prompt) if behaviour.obeys else quoted_answer(prompt, sentences=behaviour.sentences)


def _answer_prefix(prompt_ids: Sequence[int]) -> list[int]:
    """Return the token ids in the unfinished assistant turn at the end of a ChatML prompt; empty without one."""
    header = encode(f"{START}assistant\n")
    ids = list(prompt_ids)
    for start in range(len(ids) - len(header), -1, -1):
        if ids[start] == header[0]:  # the last turn
            end = start + len(header)
            return ids[end:] if ids[start:end] == header else []
    return []


def _tokens(ids: Sequence[int], max_tokens: int) -> Iterator[GeneratedToken]:
    """Yield the tokens with their texts; the last of `ids` is the end token, whose text is empty."""
    undecoded: list[int] = []
    for n, token in enumerate(ids[:max_tokens], 1):
        is_last = n == len(ids)
        reason = None
        if is_last:
            reason = "stop"
        elif n == max_tokens:
            reason = "length"
        undecoded.append(token)
        text = "" if is_last else decode(undecoded)
        if text.endswith("�") and reason is None:  # an incomplete character
            text = ""
        else:
            undecoded.clear()
        yield GeneratedToken(token=token, text=text, finish_reason=reason, probabilities={decode([token]): 0.97})


def _thinking_probe() -> GeneratedToken:
    """Return the probe's token from a reasoning model with thinking enabled: the start of its thinking."""
    marker = MARKERS[0]
    return GeneratedToken(token=encode(marker)[0], text=marker, finish_reason="length", probabilities={marker: 0.99})


def _probe(prompt: str, behaviour: Behaviour) -> GeneratedToken:
    """Return the token of a probe: yes or no in the question's language."""
    yes = behaviour.probe if behaviour.probe is not None else answer_probability(prompt)
    if behaviour.obeys:
        yes = 1.0
    korean = any("가" <= letter <= "힣" for letter in read_prompt(prompt).question)
    word = (YES if yes >= 0.5 else NO)[0 if korean else 1]
    probabilities = probe_candidates(yes)
    if not korean:  # the probabilities of the Korean and the English words are swapped
        swapped = {"Yes": "예", "예": "Yes", "No": "아니오", "아니오": "No"}
        probabilities = {swapped[candidate]: probability for candidate, probability in probabilities.items()}
    return GeneratedToken(token=encode(word)[0], text=word, finish_reason="length", probabilities=probabilities)
