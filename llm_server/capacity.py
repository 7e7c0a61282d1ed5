"""Calculates the replicas for a load from a profile's measured speeds and its memory for contexts (pure).

A full replica generates `all_streams` tokens a second and reads prompts at `prefill`; both share the machine, so an
answer takes `uncached prompt tokens ÷ prefill + answer tokens ÷ all_streams` seconds of a replica. The memory limits
the number of concurrent contexts. The headroom keeps queues short: at 70 % utilisation a request waits about as long
as its answer takes; beyond that the wait grows without bound.
"""

import math
from dataclasses import dataclass

from llm_server.profile import Profile, Speeds


@dataclass(frozen=True, slots=True, kw_only=True)
class PeakLoad:
    """The load at peak time."""

    answers_per_minute: float
    prompt_tokens: int
    answer_tokens: int
    cached_share: float = 0.3
    """The share of the prompt in the prefix cache: system text and earlier turns."""
    headroom: float = 0.3
    spare_replicas: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class CapacityPlan:
    """The capacity of one full replica with `streams` concurrent answers, and the number of `replicas` for the load."""

    streams: int
    answers_per_second: float
    first_token_seconds: float
    answer_seconds: float
    replicas: int
    bound_by: str


def plan_capacity(profile: Profile, load: PeakLoad) -> CapacityPlan:
    """Return the plan for a load.

    Raises:
        ValueError: prompt and answer exceed the model's context, or the model does not generate answers.
    """
    if profile.task != "generate":
        raise ValueError(f"The profile {profile.name} writes no answers: its load is that of searches and of loading.")
    context = load.prompt_tokens + load.answer_tokens
    if context > profile.engine.max_model_len:
        raise ValueError(
            f"A prompt of {load.prompt_tokens} and an answer of {load.answer_tokens} tokens do not fit into "
            f"{profile.engine.max_model_len} tokens of profile {profile.name}."
        )
    speeds, memory = profile.speeds, profile.memory
    fitting_contexts = memory.kv_cache // (memory.kv_per_token * context)
    streams = max(1, min(profile.engine.max_num_seqs, fitting_contexts))
    tokens_per_second = _tokens_per_second(speeds, streams)
    prefill_seconds = load.prompt_tokens * (1 - load.cached_share) / speeds.prefill
    decode_seconds = load.answer_tokens / tokens_per_second
    answers_per_second = 1 / (prefill_seconds + decode_seconds)
    replicas = load.answers_per_minute / 60 / (answers_per_second * (1 - load.headroom))
    return CapacityPlan(
        streams=streams,
        answers_per_second=answers_per_second,
        first_token_seconds=prefill_seconds,
        answer_seconds=prefill_seconds + load.answer_tokens * streams / tokens_per_second,
        replicas=math.ceil(replicas) + load.spare_replicas,
        bound_by=_bottleneck(profile, fitting_contexts, prefill_seconds, decode_seconds),
    )


def _tokens_per_second(speeds: Speeds, streams: int) -> float:
    """Return the tokens per second of all streams, interpolated between one stream and the measured full batch."""
    if streams >= speeds.streams or speeds.streams == 1:
        return speeds.all_streams
    share = (streams - 1) / (speeds.streams - 1)
    return speeds.one_stream + share * (speeds.all_streams - speeds.one_stream)


def _bottleneck(profile: Profile, fitting_contexts: int, prefill_seconds: float, decode_seconds: float) -> str:
    """Return a description of the replica's bottleneck."""
    if fitting_contexts < profile.engine.max_num_seqs and fitting_contexts < profile.speeds.streams:
        return "memory for contexts"
    return "reading prompts" if prefill_seconds > decode_seconds else "writing answers"
