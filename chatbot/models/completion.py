"""The wire of `/v1/completions`, pure: what we ask, and a decoder from the bytes of its event stream to frames.

Only the fields we need are decoded, typed by msgspec: JSON models per chunk are the main cost of a stream in Python
(facts.md section 4).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

# A frame is one token's JSON (about 300 bytes), the first also holds the prompt's ids. More than this is no model.
LONGEST_CHUNK_BYTES = 4 * 2**20


class CompletionBroken(Exception):
    """What came is not a completion, or the server reports that it gave up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How the answer's tokens are chosen."""

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = 0
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of the answer: text, and the ids of the tokens that it is."""

    text: str
    token_ids: tuple[int, ...]


class StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool = True


class CompletionRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The body of a request; fields at their default are left to the server."""

    model: str
    prompt: Sequence[int]
    max_tokens: int
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    stream: bool = False
    stream_options: StreamOptions | None = None
    return_token_ids: bool = False
    logprobs: int | None = None
    return_tokens_as_token_ids: bool = False
    cache_salt: str | None = None
    priority: int = 0  # lower is earlier; anything but 0 is refused without `--scheduling-policy priority`


class _Details(msgspec.Struct, frozen=True, gc=False):
    cached_tokens: int | None = None


class ReportedUsage(msgspec.Struct, frozen=True, gc=False):
    """The usage that an endpoint reports."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: _Details | None = None

    @property
    def cached_tokens(self) -> int:
        """Prompt tokens that came from the prefix cache; 0 where the server does not tell."""
        return (self.prompt_tokens_details.cached_tokens or 0) if self.prompt_tokens_details else 0


class _Logprobs(msgspec.Struct, frozen=True):
    top_logprobs: tuple[Mapping[str, float] | None, ...] | None = None


class Choice(msgspec.Struct, frozen=True, gc=False):
    """One piece of an answer: text that may lag behind its token ids while a character is incomplete."""

    text: str = ""
    token_ids: tuple[int, ...] | None = None
    finish_reason: str | None = None


class _ProbedChoice(msgspec.Struct, frozen=True):
    logprobs: _Logprobs | None = None


class _Fault(msgspec.Struct, frozen=True):
    message: str = ""
    code: int | str | None = None


class CompletionChunk(msgspec.Struct, frozen=True):
    """One event of the stream; the last ones carry the usage and no choice."""

    choices: tuple[Choice, ...] = ()
    usage: ReportedUsage | None = None
    error: _Fault | None = None


class _Probed(msgspec.Struct, frozen=True):
    choices: tuple[_ProbedChoice, ...]
    usage: ReportedUsage | None = None


class TopTokens(msgspec.Struct, frozen=True):
    """The likeliest next tokens by id, with log probabilities, and what asking cost."""

    logprobs: Mapping[int, float]
    usage: ReportedUsage


class ModelCard(msgspec.Struct, frozen=True):
    """How an endpoint names its model, and how many tokens fit into it."""

    id: str
    max_model_len: int | None = None


class ModelList(msgspec.Struct, frozen=True):
    data: tuple[ModelCard, ...]


class TokenizeReply(msgspec.Struct, frozen=True):
    tokens: tuple[int, ...]


_FRAMES = msgspec.json.Decoder(CompletionChunk)
_PROBED = msgspec.json.Decoder(_Probed)


class CompletionDecoder:
    """Turns the bytes of a completion's event stream into frames, wherever the network cut them.

    A server-sent event of vLLM is one `data:` line; comments (keep-alives), other fields and empty lines are skipped.
    """

    def __init__(self) -> None:
        self._rest = b""
        self.done = False  # `[DONE]` came: nothing follows

    def feed(self, data: bytes) -> list[CompletionChunk]:
        """Return the frames that are now complete.

        Raises:
            CompletionBroken: a frame is no JSON, is too long, or reports an error.
        """
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > LONGEST_CHUNK_BYTES:
            raise CompletionBroken("a frame without an end")
        frames = []
        decode = _FRAMES.decode
        for line in lines:
            if not line.startswith(b"data:"):
                continue
            try:
                frame = decode(line[5:])
            except msgspec.MsgspecError as exc:
                if line[5:].strip() == b"[DONE]":
                    self.done = True
                    break
                raise CompletionBroken("a frame that cannot be read") from exc
            if frame.error is not None:
                raise CompletionBroken(f"the server gave up in mid-answer ({frame.error.code})")
            frames.append(frame)
        return frames


def read_top_tokens(body: bytes) -> TopTokens:
    """Return the likeliest first tokens of a completion asked for with `return_tokens_as_token_ids`.

    Raises:
        CompletionBroken: the body is not that.
    """
    try:
        probed = _PROBED.decode(body)
        logprobs = probed.choices[0].logprobs
        top = (logprobs and logprobs.top_logprobs and logprobs.top_logprobs[0]) or {}
        by_id = {int(name.removeprefix("token_id:")): value for name, value in top.items()}
    except (msgspec.MsgspecError, IndexError, ValueError) as exc:
        raise CompletionBroken("the probe's answer cannot be read") from exc
    return TopTokens(by_id, probed.usage or ReportedUsage())
