"""Profiles: a model for a kind of machine, with its vLLM arguments and measured speeds.

One YAML file each in `knowledge/profiles/`, or anybody's own, named by its path. Every field of `Engine` is a flag of
`vllm serve` of the pinned release, written with underscores; `engine_args` are any other flags of it. A test parses all
profiles of ours with vLLM's own parser, and `llm-server plan` anybody's (`engine_args.py`).
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
    """Flags of `vllm serve`; all others have vLLM's defaults. Timeouts are seconds."""

    dtype: Literal["auto", "bfloat16"] = "auto"
    max_model_len: Positive
    max_num_seqs: Positive
    max_num_batched_tokens: Positive
    # Waiting and running together; more are refused with 503 at once instead of queueing without end.
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
    # Every request names its sampling; a model's own defaults (a repetition penalty, say) would change it.
    generation_config: Literal["auto", "vllm"] = "vllm"
    sse_keep_alive_interval: Positive = 10
    # The chat API asks it which texts are special tokens.
    enable_tokenizer_info_endpoint: bool = True
    # Of a model that thinks: it sends the thinking apart.
    reasoning_parser: str | None = None
    disable_uvicorn_access_log: bool = True

    def arguments(self) -> Iterator[str]:
        """Yield the fields as command-line arguments."""
        yield from as_arguments(self.model_dump(exclude_none=True))


def as_arguments(flags: Mapping[str, JsonValue]) -> Iterator[str]:
    """Yield flags of `vllm serve`, written with underscores, as command-line arguments; mappings go as JSON."""
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
    """Tokens per second of one replica; `measured` names the machine, or says that it is an estimate."""

    prefill: Annotated[float, Field(gt=0)]
    one_stream: Annotated[float, Field(gt=0)]
    all_streams: Annotated[float, Field(gt=0)]
    streams: Positive
    measured: str


class Memory(_Strict):
    """Bytes of the weights, of one token of context, and of all contexts."""

    weights: Positive
    kv_per_token: Positive
    kv_cache: Positive


Task = Literal["generate", "embed", "score"]
"""What a model is served for: answers, or the vectors (`EMBEDDER__URL`) or scores (`RERANKER__URL`) of retrieval."""


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
        """Refuse a profile that names no model, or two, or an argument at two places, or answers without deadlines."""
        if (self.weights is None) == (self.hub is None):
            raise ValueError("name either `weights` (brought by llm-server fetch) or a `hub` model")
        if self.task == "generate" and self.deadlines is None:
            raise ValueError("a model that answers needs `deadlines`: `prefill` and `answer`")
        if twice := sorted(self.engine_args.keys() & (Engine.model_fields.keys() | _SET_BY_SERVE)):
            raise ValueError(f"`engine_args` cannot set {', '.join(twice)}: `engine` or `llm-server serve` does")

    def arguments(self) -> Iterator[str]:
        """Yield the arguments of `vllm serve` that the profile decides."""
        yield from self.engine.arguments()
        yield from as_arguments(self.engine_args)


def profile_names() -> list[str]:
    """Return the names of all profiles of ours that vLLM serves, sorted."""
    return sorted(path.stem for path in PROFILES.glob("*.yaml") if "\nengine:" in path.read_text("utf-8"))


def load_profile(name: str) -> Profile:
    """Return the profile of that name, or of the file whose path that is.

    Raises:
        UnknownProfile: there is none, or its file is invalid, or not for vLLM.
    """
    path = profile_path(name)
    try:
        return Profile.model_validate({"name": path.stem, **profile_fields(path)})
    except ValidationError as exc:
        raise UnknownProfile(f"The profile {path.name} is wrong: {first_reason(exc)}") from exc
