"""Profiles are strict, and the pinned vLLM parses every flag that they use."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from knowledge.profiles import PROFILES, UnknownProfile
from llm_server.launch import ServeSettings, command, environment
from llm_server.profile import Profile, load_profile, profile_names
from llm_server.pypi_weights import WEIGHTS
from tests.warm_interpreter import warm_interpreter

VLLM = Path(__file__).parents[2] / ".venv-llm" / "bin" / "python"
# vLLM's own parser and its validation of the result; the model is not loaded.
IMPORTS = """
from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
from vllm.utils.argparse_utils import FlexibleArgumentParser
"""
PARSE = f"""
import json, sys
{IMPORTS}
for line in sys.stdin:
    args = make_arg_parser(FlexibleArgumentParser()).parse_args(json.loads(line))
    validate_parsed_serve_args(args)
    print(json.dumps([args.max_num_queued_reqs, args.shutdown_timeout, args.scheduling_policy, args.revision]))
"""


@pytest.fixture(scope="module")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """vLLM's interpreter with vLLM already imported, which takes ten seconds of CPU time."""
    with warm_interpreter(VLLM, IMPORTS, tmp_path_factory.mktemp("vllm")) as python:
        yield python


def settings(profile: Profile) -> ServeSettings:
    model = profile.hub.name if profile.hub else "/weights"
    return ServeSettings(
        profile=profile, model=model, python=VLLM, log_file=Path("log"), otlp_endpoint="http://127.0.0.1:4317"
    )


def test_vllm_itself_parses_the_arguments_of_every_profile(vllm: Path) -> None:
    profiles = [load_profile(name) for name in profile_names()]
    lines = "\n".join(json.dumps(command(settings(profile))[4:]) for profile in profiles)
    finished = subprocess.run([vllm, "-c", PARSE], input=lines, capture_output=True, text=True, check=False)  # noqa: S603
    assert finished.returncode == 0, finished.stderr[-2000:]
    parsed = [json.loads(line) for line in finished.stdout.splitlines() if line.startswith("[")]
    assert parsed == [
        [
            profile.engine.max_num_queued_reqs,
            profile.engine.shutdown_timeout,
            "priority",
            profile.hub.revision if profile.hub else None,
        ]
        for profile in profiles
    ]


@pytest.mark.parametrize("name", profile_names())
def test_a_profile_is_pinned_and_fits_its_memory(name: str) -> None:
    profile = load_profile(name)
    assert (profile.weights in WEIGHTS) != (profile.hub is not None)
    longest = profile.engine.max_model_len * profile.memory.kv_per_token
    assert profile.memory.kv_cache >= longest, "not even one conversation of full length fits"
    assert profile.engine.max_num_queued_reqs >= profile.engine.max_num_seqs


@pytest.mark.parametrize("name", [name for name in profile_names() if load_profile(name).device == "cuda"])
def test_a_profile_names_estimated_speeds(name: str) -> None:
    profile = load_profile(name)
    assert ("Never run on a GPU" in profile.about) == ("an estimate" in profile.speeds.measured)


def test_a_model_that_answers_customers_has_deadlines() -> None:
    answering = [profile for profile in map(load_profile, profile_names()) if profile.task == "generate"]
    assert len(answering) == 9
    assert all(profile.deadlines and profile.deadlines.prefill <= 1.2 * profile.speeds.prefill for profile in answering)


def test_a_cpu_profile_binds_the_cores_and_sends_no_telemetry() -> None:
    variables = environment(settings(load_profile("cpu")))
    assert variables["VLLM_CPU_OMP_THREADS_BIND"]
    assert variables["VLLM_NO_USAGE_STATS"] == variables["DO_NOT_TRACK"] == "1"
    assert variables["VLLM_CPU_KVCACHE_SPACE"] == "1"


def test_a_profile_of_ones_own_has_any_arguments(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    more = "engine_args: {enable_lora: true, lora_modules: [a=/a], x_y: 3}\n"
    path.write_text((PROFILES / "cpu.yaml").read_text("utf-8") + more, encoding="utf-8")
    assert command(settings(load_profile(str(path))))[-7:-2] == [
        "--enable-lora",
        "--lora-modules",
        "a=/a",
        "--x-y",
        "3",
    ]


def test_an_unknown_profile_is_refused_with_the_choices() -> None:
    with pytest.raises(UnknownProfile, match="choose from a100, b200, cpu, cpu-small"):
        load_profile("tpu")


@pytest.mark.parametrize(
    ("name", "pattern", "replacement", "sentence"),
    [
        ("cpu", "engine:", "engine:\n  max_model_length: 5", "mine.yaml is wrong: engine.max_model_length"),
        ("cpu", r"max_num_seqs: \d+", "max_num_seqs: 0", "mine.yaml is wrong: engine.max_num_seqs"),
        ("cpu", "engine:", "engine:\n  kv_cache_dtype: int3", "mine.yaml is wrong: engine.kv_cache_dtype"),
        ("cpu", "engine:", "engine_args: {max_model_len: 1}\nengine:", "`engine_args` cannot set max_model_len"),
        ("cpu", "engine:", "engine_args: {port: 1}\nengine:", "`engine_args` cannot set port"),
        ("cpu", r"(?s)deadlines:.*(?=memory:)", "", "needs `deadlines`"),
        ("l4", "8591804019c8b22094c3b5b4454e0edc05dffc98", "main", r"hub\.revision"),
    ],
)
def test_a_wrong_profile_is_refused_by_its_field(
    tmp_path: Path, name: str, pattern: str, replacement: str, sentence: str
) -> None:
    path = tmp_path / "mine.yaml"
    text, changes = re.subn(pattern, replacement, (PROFILES / f"{name}.yaml").read_text("utf-8"), count=1)
    assert changes == 1
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UnknownProfile, match=sentence):
        load_profile(str(path))
