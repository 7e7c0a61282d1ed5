"""Capacity is arithmetic on a profile's figures."""

import pytest

from knowledge.profiles import Deadlines
from llm_server.capacity import PeakLoad, plan_capacity
from llm_server.profile import Engine, Memory, Profile, Speeds

PROFILE = Profile(
    name="machine",
    about="",
    device="cuda",
    weights="cpu",
    served_name="m",
    engine=Engine(
        max_model_len=4096, max_num_seqs=10, max_num_batched_tokens=2048, max_num_queued_reqs=20, shutdown_timeout=1
    ),
    speeds=Speeds(prefill=1000, one_stream=10, all_streams=100, streams=10, measured="made up"),
    deadlines=Deadlines(prefill=1, answer=1),
    memory=Memory(weights=1, kv_per_token=1, kv_cache=11_000),
)
LOAD = PeakLoad(answers_per_minute=60, prompt_tokens=1000, answer_tokens=100, cached_share=0.5)


def test_reading_and_writing_share_a_replica() -> None:
    planned = plan_capacity(PROFILE, LOAD)
    assert planned.streams == 10
    assert planned.first_token_seconds == pytest.approx(0.5)  # 500 uncached tokens at 1,000 a second
    assert planned.answers_per_second == pytest.approx(1 / (0.5 + 1.0))  # and 100 tokens at 100 a second
    assert planned.answer_seconds == pytest.approx(0.5 + 10.0)  # each of ten streams gets 10 a second


def test_replicas_cover_the_load_with_headroom_and_a_spare() -> None:
    planned = plan_capacity(PROFILE, LOAD)
    needed = 1.0 / (planned.answers_per_second * 0.7)
    assert planned.replicas == 3 + 1
    assert 2 < needed < 3


def test_contexts_that_do_not_fit_into_memory_do_not_run_together() -> None:
    small = PROFILE.model_copy(update={"memory": Memory(weights=1, kv_per_token=1, kv_cache=2_200)})
    planned = plan_capacity(small, LOAD)
    assert planned.streams == 2
    assert planned.bound_by == "memory for contexts"
    assert planned.answers_per_second < plan_capacity(PROFILE, LOAD).answers_per_second


def test_a_prompt_longer_than_the_context_is_refused_in_words() -> None:
    with pytest.raises(ValueError, match="do not fit into 4096 tokens of profile machine"):
        plan_capacity(PROFILE, PeakLoad(answers_per_minute=1, prompt_tokens=4000, answer_tokens=200))
