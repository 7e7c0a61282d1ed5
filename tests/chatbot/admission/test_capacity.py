"""Slots follow what the endpoints say of themselves, within the settings' bound, and fall back on it."""

from pathlib import Path

import pytest

from chatbot.admission.capacity import EndpointLoad, LoadNotReported, read_load, slots_after

VLLM = """# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 2.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="m"} 1.0
vllm:num_requests_waiting{engine="1",model_name="m"} 0.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="m",reason="capacity"} 1.0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="m"} 0.5
vllm:prompt_tokens_total{engine="0",model_name="m"} 12345.0
"""


def idle(**more: float) -> EndpointLoad:
    return EndpointLoad(running=0, waiting=0, **more)


def test_the_metrics_of_the_pinned_vllm_are_read_over_all_its_engines() -> None:
    assert read_load(VLLM) == EndpointLoad(running=5, waiting=1, cache=0.5)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "up 1\n",
        VLLM.replace("waiting{", "queued{"),
        *(VLLM.replace("} 3.0", f"}} {value}") for value in ("three", "NaN", "+Inf", "-1", "1e300")),
        VLLM.replace("} 0.25", "} NaN"),
    ],
)
def test_invalid_metrics_report_no_load(text: str) -> None:
    with pytest.raises(LoadNotReported):
        read_load(text)


def test_the_names_that_we_read_stand_in_the_pinned_vllm() -> None:
    sources = sorted(Path(".venv-llm").glob("lib/python3*/site-packages/vllm/v1/metrics/loggers.py"))
    if not sources:
        pytest.skip("no vLLM here (.venv-llm)")
    source = sources[0].read_text("utf-8")
    for name in ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc"):
        assert f'name="{name}"' in source


def test_each_replica_takes_its_part_of_the_waiting_back() -> None:
    full = [EndpointLoad(running=16, waiting=4)]
    assert slots_after(16, full, busy=20, calm=0, most=32) == 12, "alone: all four"
    assert slots_after(16, full, busy=10, calm=0, most=32) == 8, "one of two replicas: two of them"
    assert slots_after(16, full, busy=0, calm=0, most=32) == 1, "never none"


def test_slots_grow_while_nothing_waits() -> None:
    assert slots_after(4, [idle()], busy=4, calm=4, most=16) == 4
    assert slots_after(4, [idle()], busy=4, calm=5, most=16) == 5
    assert slots_after(16, [idle()], busy=16, calm=9, most=64) == 18
    assert slots_after(64, [idle()], busy=1, calm=9, most=64) == 64
    assert slots_after(16, [idle(cache=0.3), idle(cache=0.97)], busy=9, calm=9, most=16) == 9, "no room for contexts"
    assert slots_after(3, [], busy=3, calm=1, most=16) == 16, "nothing is told"


def test_the_slots_of_all_replicas_settle_at_what_the_endpoints_run() -> None:
    runs, replicas, calm = 12, [16, 16, 16], 0
    for _ in range(60):
        started = sum(replicas)
        load = [EndpointLoad(running=min(started, runs), waiting=max(0, started - runs))]
        calm = 0 if load[0].waiting else calm + 1
        replicas = [slots_after(slots, load, busy=slots, calm=calm, most=16) for slots in replicas]
    assert runs - len(replicas) <= sum(replicas) <= runs + len(replicas), "each tries one more now and then"
