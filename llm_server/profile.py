"""Profiles: a model for a kind of machine, with its vLLM arguments and measured speeds.

One YAML file each in `profiles/`. Every field of `Engine` is a flag of `vllm serve` of the pinned release, written with
underscores; a test parses all profiles with vLLM's own parser.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

PROFILES = Path(__file__).parent / "profiles"
Positive = Annotated[int, Field(gt=0)]


class UnknownProfile(Exception):
    """There is no such profile, or its file is invalid; the message names the choices or the field."""


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
    disable_uvicorn_access_log: bool = True

    def arguments(self) -> Iterator[str]:
        """Yield the fields as command-line arguments."""
        for name, value in self.model_dump(exclude_none=True).items():
            flag = f"--{name.replace('_', '-')}"
            if value is False:
                yield f"--no-{name.replace('_', '-')}"
            elif value is True:
                yield flag
            else:
                yield from (flag, str(value))


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


class Profile(_Strict):
    """A model on a kind of machine, for `serve` and `plan`."""

    name: str
    about: str
    device: Literal["cpu", "cuda"]
    weights: str | None = None
    hub: HubModel | None = None
    served_name: str
    engine: Engine
    environment: Mapping[str, str] = Field(default_factory=dict)
    speeds: Speeds
    memory: Memory

    def model_post_init(self, _: object) -> None:
        """Refuse a profile that names no model, or two."""
        if (self.weights is None) == (self.hub is None):
            raise ValueError("name either `weights` (brought by llm-server fetch) or a `hub` model")


def profile_names() -> list[str]:
    """Return the names of all profiles, sorted."""
    return sorted(path.stem for path in PROFILES.glob("*.yaml"))


def load_profile(name: str) -> Profile:
    """Return the profile of that name.

    Raises:
        UnknownProfile: there is none, or its file is invalid.
    """
    path = PROFILES / f"{name}.yaml"
    if name not in profile_names():
        raise UnknownProfile(f"There is no profile {name!r}: choose from {', '.join(profile_names())}.")
    return read_profile(path)


def read_profile(path: Path) -> Profile:
    """Read a profile from a file.

    Raises:
        UnknownProfile: the file is invalid; the message names the field.
    """
    try:
        return Profile.model_validate({"name": path.stem, **yaml.safe_load(path.read_text(encoding="utf-8"))})
    except (ValidationError, yaml.YAMLError, TypeError) as exc:
        raise UnknownProfile(f"The profile {path.name} is wrong: {_first_reason(exc)}") from exc


def _first_reason(exc: Exception) -> str:
    if not isinstance(exc, ValidationError):
        return str(exc).replace("\n", " ")
    error = exc.errors()[0]
    return f"{'.'.join(str(part) for part in error['loc'])}: {error['msg']}"
