"""How many replicas a load needs, from a profile's measured speeds and its memory for contexts. Pure arithmetic.

A replica writes `all_streams` tokens a second when full and reads prompts at `prefill`; the two share the machine, so
an answer costs `prompt tokens read ÷ prefill + answer tokens ÷ all_streams` seconds of a replica. Contexts that do not
fit into memory cannot run together. The headroom keeps queues short: at 70 % busy a request waits about as long as it
is served, beyond that the wait grows without bound.
"""

import math
from dataclasses import dataclass

from llm_server.profile import Profile


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What customers bring at the busiest time."""

    answers_per_minute: float
    prompt_tokens: int
    answer_tokens: int
    cached_share: float = 0.3  # of the prompt: system text and earlier turns found in the prefix cache
    headroom: float = 0.3
    spare_replicas: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What one replica does, and how many the load needs."""

    streams: int
    answers_per_second: float
    first_token_seconds: float
    answer_seconds: float
    replicas: int
    bound_by: str


def plan(profile: Profile, load: Load) -> Plan:
    """Return the plan for a load.

    Raises:
        ValueError: prompt and answer do not fit into the model's context.
    """
    context = load.prompt_tokens + load.answer_tokens
    if context > profile.engine.max_model_len:
        raise ValueError(
            f"A prompt of {load.prompt_tokens} and an answer of {load.answer_tokens} tokens do not fit into "
            f"{profile.engine.max_model_len} tokens of profile {profile.name}."
        )
    speeds, memory = profile.speeds, profile.memory
    fitting = memory.kv_cache // (memory.kv_per_token * context)
    streams = max(1, min(profile.engine.max_num_seqs, fitting))
    together = _together(profile, streams)
    reading = load.prompt_tokens * (1 - load.cached_share) / speeds.prefill
    writing = load.answer_tokens / together
    per_second = 1 / (reading + writing)
    needed = load.answers_per_minute / 60 / (per_second * (1 - load.headroom))
    return Plan(
        streams=streams,
        answers_per_second=per_second,
        first_token_seconds=reading,
        answer_seconds=reading + load.answer_tokens * streams / together,
        replicas=math.ceil(needed) + load.spare_replicas,
        bound_by=_bound(profile, fitting, reading, writing),
    )


def _together(profile: Profile, streams: int) -> float:
    """Return tokens a second over `streams`: linear between one stream and the measured full batch."""
    speeds = profile.speeds
    if streams >= speeds.streams or speeds.streams == 1:
        return speeds.all_streams
    share = (streams - 1) / (speeds.streams - 1)
    return speeds.one_stream + share * (speeds.all_streams - speeds.one_stream)


def _bound(profile: Profile, fitting: int, reading: float, writing: float) -> str:
    if fitting < profile.engine.max_num_seqs and fitting < profile.speeds.streams:
        return "memory for contexts"
    return "reading prompts" if reading > writing else "writing answers"
