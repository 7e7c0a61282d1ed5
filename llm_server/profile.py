"""Profiles: a model for a kind of machine, with its vLLM arguments and measured speeds.

A profile is a YAML file in `knowledge/profiles/`, or any other file given by its path. Every field of `Engine` is a
`vllm serve` flag of the pinned release, written with underscores; `engine_args` has other flags. A test parses our
profiles with vLLM's own parser; in other files, vLLM itself refuses unknown flags at its start.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from knowledge.profiles import (
    PROFILES,
    AnswerMode,
    Deadlines,
    UnknownProfile,
    first_reason,
    profile_fields,
    profile_path,
)

Positive = Annotated[int, Field(gt=0)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class HubModel(_Strict):
    """A model on a hub, pinned to the tested commit."""

    name: str
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]


class Engine(_Strict):
    """Flags of `vllm serve`; all others keep vLLM's defaults. Timeouts are in seconds."""

    dtype: Literal["auto", "bfloat16"] = "auto"
    max_model_len: Positive
    max_num_seqs: Positive
    max_num_batched_tokens: Positive
    # Waiting and running together; further requests are rejected with 503 at once, so that the queue is bounded.
    max_num_queued_reqs: Positive
    tensor_parallel_size: Positive = 1
    gpu_memory_utilization: Annotated[float, Field(gt=0, lt=1)] | None = None
    kv_cache_dtype: Literal["auto", "fp8"] = "auto"
    kv_cache_memory_bytes: Positive | None = None
    enforce_eager: bool = False
    enable_prefix_caching: bool = True
    scheduling_policy: Literal["fcfs", "priority"] = "priority"
    # vLLM's default of 0 aborts every stream on SIGTERM.
    shutdown_timeout: Positive
    enable_prompt_tokens_details: bool = True
    enable_request_id_headers: bool = True
    # Every request sets its sampling; a model's own defaults (e.g. a repetition penalty) would change it.
    generation_config: Literal["auto", "vllm"] = "vllm"
    sse_keep_alive_interval: Positive = 10
    # The chat API reads the special tokens from this endpoint.
    enable_tokenizer_info_endpoint: bool = True
    # For a reasoning model: separates the thinking from the answer.
    reasoning_parser: str | None = None
    disable_uvicorn_access_log: bool = True

    def arguments(self) -> Iterator[str]:
        """Yield the fields as command-line arguments."""
        yield from as_arguments(self.model_dump(exclude_none=True))


def as_arguments(flags: Mapping[str, JsonValue]) -> Iterator[str]:
    """Yield `vllm serve` flags, written with underscores, as command-line arguments, with mappings as JSON."""
    for name, value in flags.items():
        flag = name.replace("_", "-")
        match value:
            case False:
                yield f"--no-{flag}"
            case True | None:
                yield f"--{flag}"
            case list():
                yield from (f"--{flag}", *map(str, value))
            case dict():
                yield from (f"--{flag}", json.dumps(value))
            case _:
                yield from (f"--{flag}", str(value))


_SET_BY_SERVE = frozenset({"model", "host", "port", "served_model_name", "revision", "otlp_traces_endpoint", "api_key"})


class Speeds(_Strict):
    """Tokens per second of one replica: reading prompts, writing one answer, and writing `streams` answers at once.

    `measured` names the machine or says that the figures are estimates.
    """

    prefill: Annotated[float, Field(gt=0)]
    one_stream: Annotated[float, Field(gt=0)]
    all_streams: Annotated[float, Field(gt=0)]
    streams: Positive
    measured: str


class Memory(_Strict):
    """Memory in bytes: the weights, one token of context, and all contexts."""

    weights: Positive
    kv_per_token: Positive
    kv_cache: Positive


Task = Literal["generate", "embed", "score"]
"""A model's task: answers, or the vectors (`EMBEDDER__URL`) or scores (`RERANKER__URL`) of retrieval."""


class Profile(_Strict):
    """A model on a kind of machine, for `serve` and `plan`."""

    name: str
    about: str
    device: Literal["cpu", "cuda"]
    task: Task = "generate"
    weights: str | None = None
    hub: HubModel | None = None
    served_name: str
    engine: Engine
    engine_args: Mapping[str, JsonValue] = Field(default_factory=dict)
    environment: Mapping[str, str] = Field(default_factory=dict)
    speeds: Speeds
    deadlines: Deadlines | None = None
    answer: AnswerMode = AnswerMode.QUOTE
    memory: Memory

    def model_post_init(self, _: object) -> None:
        """Reject a profile without exactly one model, without deadlines for answers, or with a flag set twice."""
        if (self.weights is None) == (self.hub is None):
            raise ValueError("name either `weights` (from llm-server fetch) or a `hub` model")
        if self.task == "generate" and self.deadlines is None:
            raise ValueError("a model that answers needs `deadlines`: `prefill` and `answer`")
        reserved = Engine.model_fields.keys() | _SET_BY_SERVE
        duplicates = sorted(self.engine_args.keys() & reserved)
        if duplicates:
            raise ValueError(f"`engine_args` cannot set {', '.join(duplicates)}: `engine` or `llm-server serve` does")

    def arguments(self) -> Iterator[str]:
        """Yield the profile's arguments of `vllm serve`."""
        yield from self.engine.arguments()
        yield from as_arguments(self.engine_args)


def profile_names() -> list[str]:
    """Return the sorted names of our profiles for vLLM."""
    return sorted(path.stem for path in PROFILES.glob("*.yaml") if "\nengine:" in path.read_text("utf-8"))


def load_profile(name: str) -> Profile:
    """Load a profile by its name, or by the path of a .yaml file.

    Raises:
        UnknownProfile: the profile does not exist, is invalid, or is not for vLLM.
    """
    path = profile_path(name)
    try:
        return Profile.model_validate({"name": path.stem, **profile_fields(path)})
    except ValidationError as exc:
        raise UnknownProfile(f"The profile {path.name} is wrong: {first_reason(exc)}") from exc
