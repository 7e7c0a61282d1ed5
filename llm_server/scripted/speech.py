"""What one request to the scripted server is answered with, token by token. Pure but for the tokenizer it is given."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import msgspec
from tokenizers import Tokenizer

from llm_server.scripted.answers import NO, YES, answerable, obey, quote, read_prompt
from llm_server.scripted.byte_tokenizer import byte_tokenizer
from llm_server.scripted.wire import Turn, probe_candidates

START, END = "<|im_start|>", "<|im_end|>"


class Behaviour(msgspec.Struct, frozen=True, kw_only=True):
    """How the scripted model behaves; every field may be changed while it runs (`POST /script`).

    A fault holds until told otherwise, or for the next `times` generations. Tokens are counted from the first one that
    the request asked for, so a continuation counts anew. `hung` also silences the probes, as a stopped process would;
    `dead` cuts every connection, as a killed one would.
    """

    answer: str | None = None  # this text; otherwise a quotation of the passage that fits the question best
    obeys: bool = False  # instead it says yes to every probe and repeats whatever the customer's turn demands
    sentences: int = 2  # how many sentences are quoted
    probe: float | None = None  # P(yes) of the answerability probe; otherwise by overlap with the passages
    chooses: tuple[float, ...] = ()  # P of each number, from 1 on, where one token is asked for
    first_token_seconds: float = 0.0
    prefill_tokens_per_second: float = math.inf
    token_seconds: float = 0.0
    slots: int = 256
    queue: int | None = None  # generations allowed to wait for a slot; more are refused with 503, as vLLM does
    max_model_len: int = 32_768
    cache_used: float = 0.0  # what its metrics say of its cache of contexts
    fail_status: int | None = None
    retry_after: int | None = None
    stall_after: int | None = None
    drop_after: int | None = None
    garble_after: int | None = None  # a frame that is no JSON
    die_after: int | None = None
    dead: bool = False
    hung: bool = False
    times: int | None = None

    def healed(self) -> "Behaviour":
        """Return the same model without its faults."""
        return msgspec.structs.replace(
            self, fail_status=None, stall_after=None, drop_after=None, garble_after=None, die_after=None, times=None
        )

    def claimed(self) -> "Behaviour":
        """Return the behaviour that is left once one more generation has taken its share of `times`."""
        if self.times is None:
            return self
        return msgspec.structs.replace(self, times=self.times - 1) if self.times > 1 else self.healed()


@dataclass(frozen=True, slots=True)
class Step:
    """One token of an answer: its text ("" while a character is incomplete) and how likely the alternatives were."""

    token: int
    text: str
    finish_reason: str | None
    chances: dict[str, float]


@cache
def tokenizer() -> Tokenizer:
    """Return the scripted model's tokenizer, which `write_tokenizer` also writes to a folder."""
    return Tokenizer.from_str(byte_tokenizer().to_json())


def encode(text: str) -> list[int]:
    """Return the token ids of `text`, in which ChatML's markers are special tokens."""
    ids: list[int] = tokenizer().encode(text, add_special_tokens=False).ids
    return ids


def decode(ids: Sequence[int]) -> str:
    """Return the text of `ids`, special tokens included."""
    text: str = tokenizer().decode(list(ids), skip_special_tokens=False)
    return text


def render(turns: Sequence[Turn], *, add_generation_prompt: bool = True, continue_final_message: bool = False) -> str:
    """Return the ChatML prompt of a chat, exactly as the folder's chat template renders it."""
    text = "".join(f"{START}{turn.role}\n{turn.content}{END}\n" for turn in turns)
    if continue_final_message:
        return text.removesuffix(f"{END}\n")
    return f"{text}{START}assistant\n" if add_generation_prompt else text


def speak(
    prompt_ids: Sequence[int], behaviour: Behaviour, *, max_tokens: int, stop: Sequence[str], probing: bool
) -> Iterator[Step]:
    """Yield the answer to `prompt_ids` from where its assistant turn breaks off, at most `max_tokens` of it."""
    prompt = decode(prompt_ids)
    if probing and max_tokens == 1:
        yield _probe(prompt, behaviour)
        return
    whole = _whole(prompt, behaviour)
    cut = min((whole.find(word) for word in stop if word in whole), default=len(whole))
    said = encode(whole[:cut])
    begun = _begun(prompt_ids)
    done = len(begun) if said[: len(begun)] == begun else 0
    yield from _steps([*said[done:], *encode(END)], max_tokens)


def _whole(prompt: str, behaviour: Behaviour) -> str:
    if behaviour.answer is not None:
        return behaviour.answer
    return obey(prompt) if behaviour.obeys else quote(prompt, sentences=behaviour.sentences)


def _begun(prompt_ids: Sequence[int]) -> list[int]:
    """Return the ids that already stand in the assistant turn with which a ChatML prompt ends."""
    header = encode(f"{START}assistant\n")
    for at in range(len(prompt_ids) - len(header), -1, -1):
        if prompt_ids[at] == header[0]:
            return list(prompt_ids[at + len(header) :]) if list(prompt_ids[at : at + len(header)]) == header else []
    return []


def _steps(ids: Sequence[int], max_tokens: int) -> Iterator[Step]:
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
        yield Step(token=token, text=text, finish_reason=reason, chances={decode([token]): 0.97})


def _probe(prompt: str, behaviour: Behaviour) -> Step:
    """Return the one token that says whether the passages answer, in the question's language, or which of them."""
    yes = 1.0 if behaviour.obeys else answerable(prompt) if behaviour.probe is None else behaviour.probe
    korean = any("가" <= letter <= "힣" for letter in read_prompt(prompt).question)
    word = (YES if yes >= 0.5 else NO)[0 if korean else 1]
    chances = probe_candidates(yes)
    if not korean:
        chances = {word: chances[other] for word, other in zip(("Yes", "예", "No", "아니오"), chances, strict=True)}
    chances |= {str(n): chance for n, chance in enumerate(behaviour.chooses, 1)}
    return Step(token=encode(word)[0], text=word, finish_reason="length", chances=chances)
