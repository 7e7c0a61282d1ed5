"""Generates the scripted model's answer to one request, token by token. Pure but for the cached tokenizer."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import msgspec
from tokenizers import Tokenizer

from llm_server.scripted.answers import NO, YES, answer_probability, obedient_answer, quoted_answer, read_prompt
from llm_server.scripted.byte_tokenizer import byte_tokenizer
from llm_server.scripted.wire import RequestMessage, probe_candidates

START, END = "<|im_start|>", "<|im_end|>"


class Behaviour(msgspec.Struct, frozen=True, kw_only=True):
    """How the scripted model behaves; every field may be changed while it runs (`POST /script`).

    A fault applies until it is changed, or for the next `times` generations. Tokens are counted from the first one of a
    request, so a continuation counts anew. `hung` also blocks health checks, like a stopped process; `dead` cuts every
    connection, like a killed one.
    """

    answer: str | None = None  # otherwise a quotation of the passages that match the question best
    obeys: bool = False  # yes to every probe, and the last user turn as the answer
    sentences: int = 2  # of a quotation
    probe: float | None = None  # P(yes) of the answerability probe; otherwise by overlap with the passages
    chooses: tuple[float, ...] = ()  # P of each number, from 1 on, where one token is asked for
    first_token_seconds: float = 0.0
    prefill_tokens_per_second: float = math.inf
    token_seconds: float = 0.0
    slots: int = 256
    queue: int | None = None  # generations allowed to wait for a slot; more are refused with 503, as vLLM does
    max_model_len: int = 32_768
    cache_used: float = 0.0  # the KV cache usage of its metrics
    fail_status: int | None = None
    retry_after: int | None = None
    stall_after: int | None = None
    drop_after: int | None = None
    garble_after: int | None = None  # a chunk that is no JSON
    die_after: int | None = None
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
    """One token of an answer: its text (empty while a character is incomplete) and the likeliest tokens."""

    token: int
    text: str
    finish_reason: str | None
    probabilities: dict[str, float]


@cache
def tokenizer() -> Tokenizer:
    """Return the scripted model's tokenizer, the one of `write_tokenizer`."""
    return Tokenizer.from_str(byte_tokenizer().to_json())


def encode(text: str) -> list[int]:
    """Return the token ids of `text`, in which ChatML's markers are special tokens."""
    ids: list[int] = tokenizer().encode(text, add_special_tokens=False).ids
    return ids


def decode(ids: Sequence[int]) -> str:
    """Return the text of `ids`, special tokens included."""
    text: str = tokenizer().decode(list(ids), skip_special_tokens=False)
    return text


def render(
    turns: Sequence[RequestMessage], *, add_generation_prompt: bool = True, continue_final_message: bool = False
) -> str:
    """Return the ChatML prompt of a chat, exactly as the folder's chat template renders it."""
    text = "".join(f"{START}{turn.role}\n{turn.content}{END}\n" for turn in turns)
    if continue_final_message:
        return text.removesuffix(f"{END}\n")
    return f"{text}{START}assistant\n" if add_generation_prompt else text


def generate(
    prompt_ids: Sequence[int], behaviour: Behaviour, *, max_tokens: int, stop: Sequence[str], probing: bool
) -> Iterator[GeneratedToken]:
    """Yield the answer to a prompt, after the part in its assistant turn, at most `max_tokens` tokens."""
    prompt = decode(prompt_ids)
    if probing and max_tokens == 1:
        yield _probe(prompt, behaviour)
        return
    text = _answer_text(prompt, behaviour)
    end = min((text.find(word) for word in stop if word in text), default=len(text))
    ids = encode(text[:end])
    begun = _begun_answer(prompt_ids)
    skipped = len(begun) if ids[: len(begun)] == begun else 0
    yield from _tokens([*ids[skipped:], *encode(END)], max_tokens)


def _answer_text(prompt: str, behaviour: Behaviour) -> str:
    if behaviour.answer is not None:
        return behaviour.answer
    return obedient_answer(prompt) if behaviour.obeys else quoted_answer(prompt, sentences=behaviour.sentences)


def _begun_answer(prompt_ids: Sequence[int]) -> list[int]:
    """Return the ids of the answer in the assistant turn at the end of a ChatML prompt."""
    header = encode(f"{START}assistant\n")
    for at in range(len(prompt_ids) - len(header), -1, -1):
        if prompt_ids[at] == header[0]:
            return list(prompt_ids[at + len(header) :]) if list(prompt_ids[at : at + len(header)]) == header else []
    return []


def _tokens(ids: Sequence[int], max_tokens: int) -> Iterator[GeneratedToken]:
    held: list[int] = []
    for n, token in enumerate(ids[:max_tokens], 1):
        last = n == len(ids)
        reason = "stop" if last else "length" if n == max_tokens else None
        held.append(token)
        text = "" if last else decode(held)
        if text.endswith("�") and reason is None:
            text = ""
        else:
            held.clear()
        yield GeneratedToken(token=token, text=text, finish_reason=reason, probabilities={decode([token]): 0.97})


def _probe(prompt: str, behaviour: Behaviour) -> GeneratedToken:
    """Return the token of a probe: yes or no in the question's language, or a number."""
    yes = 1.0 if behaviour.obeys else answer_probability(prompt) if behaviour.probe is None else behaviour.probe
    korean = any("가" <= letter <= "힣" for letter in read_prompt(prompt).question)
    word = (YES if yes >= 0.5 else NO)[0 if korean else 1]
    probabilities = probe_candidates(yes)
    if not korean:
        english = ("Yes", "예", "No", "아니오")
        probabilities = {word: probabilities[other] for word, other in zip(english, probabilities, strict=True)}
    probabilities |= {str(n): probability for n, probability in enumerate(behaviour.chooses, 1)}
    return GeneratedToken(token=encode(word)[0], text=word, finish_reason="length", probabilities=probabilities)
