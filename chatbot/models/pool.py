"""Which endpoint answers: groups of endpoints, the home of each conversation, and whether an endpoint may be called.

A canary gets its share of the conversations, always the same ones; the others begin with a primary. Where neither can
answer, the fallback does. The shadow answers no customer: it gets the same prompts in addition (`chatbot/shadow.py`).

A conversation stays with its home, where its prefix is cached, until the home has more than its share of the calls
(rendezvous hashing, Thaler and Ravishankar 1998, with bounded loads, Mirrokni et al. 2018). Then the less busy of two
other endpoints, drawn at random, takes the call (the power of two choices, Mitzenmacher 2001). An endpoint whose
breaker is open does not count; its conversations spread over the rest and return afterwards.
"""

import math
import os
import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Literal, Protocol, get_args

import structlog
import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    HttpUrl,
    JsonValue,
    RootModel,
    SecretStr,
    ValidationError,
    model_validator,
)

from chatbot.models.capabilities import Capabilities
from chatbot.models.endpoint import OUR_FIELDS, Endpoint
from knowledge.breaker import Breaker, BreakerSettings, BreakerState, Permit
from knowledge.model_connection import Access
from knowledge.profiles import Deadlines, UnknownProfile, read_deadlines
from knowledge.tls import TlsFiles, TlsSettings

log = structlog.get_logger(__name__)

Group = Literal["primary", "canary", "fallback", "shadow"]
SERVING_GROUPS: tuple[Group, ...] = ("primary", "canary", "fallback")
"""Those whose answers customers see."""


def _known_profile(name: str) -> str:
    try:
        read_deadlines(name)
    except UnknownProfile as exc:
        raise ValueError(str(exc)) from exc
    return name


ProfileName = Annotated[str, AfterValidator(_known_profile)]
"""One of `knowledge/profiles`, or the path of a file of the same shape; of it only the `deadlines` are read here."""

# How many times the mean number of calls an endpoint may have before conversations leave their home.
_LOAD_BOUND = 1.25
_RETRY_SHARE = 0.1
_MOST_SAVED_RETRIES = 10.0
_TRY_OUT_EVERY = 30.0
# Retry-After when every model is stopped: how long the stop lasts is not known.
_ALL_STOPPED_SECONDS = 60.0


class ModelsMisconfigured(Exception):
    """The settings cannot serve, which ends the boot; the message says what to set."""


def _split(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


_Urls = Annotated[tuple[HttpUrl, ...], BeforeValidator(_split)]


class ModelsFileEntry(TlsSettings, frozen=True, extra="forbid"):
    """One entry of the MODELS_FILE: endpoints of one model on machines of one profile."""

    name: str
    urls: _Urls = Field(min_length=1)
    follow_dns: bool = Field(
        default=False, description="each address of the urls' names is an endpoint of its own, asked anew every 5 s"
    )
    group: Group = "primary"
    weight: float | None = Field(None, ge=0, lt=1, description="a canary's or a shadow's share of the conversations")
    tokenizer: Path | None = Field(
        None, description="the model's tokenizer.json, or its folder: it counts tokens where no server of vLLM's does"
    )
    profile: ProfileName = "hosted"
    model: str | None = Field(
        None, description="name to ask for, also an adapter's; otherwise the first that /v1/models tells"
    )
    api_key_file: Path | None = Field(None, description="a file with the endpoints' key")
    api_key_variable: str | None = Field(None, description="an environment variable with the endpoints' key")
    headers: Mapping[str, str] = Field({}, description="sent with every request; the key is none of them")
    extra_body: Mapping[str, JsonValue] = Field(
        {}, description="fields of every generation beside those of the product"
    )
    chat_template_kwargs: Mapping[str, JsonValue] = Field(
        {}, description="what the chat template is given beside the messages, such as `enable_thinking: false`"
    )

    def read_deadlines(self) -> Deadlines:
        """Return the profile's deadlines (blocking)."""
        return read_deadlines(self.profile)

    def access(self, api_key: str | None) -> Access:
        """Return what the endpoints are given with every request (blocking); `api_key` is of LLM_URLS.

        Raises:
            ModelsMisconfigured: a file or a variable cannot be read.
        """
        key = self._api_key() or api_key
        headers = {**self.headers, **({"Authorization": f"Bearer {key}"} if key else {})}
        try:
            tls = self.context()
        except OSError as exc:  # ssl.SSLError is one
            raise ModelsMisconfigured(f"the TLS files of {self.name} cannot be used: {exc}") from exc
        return Access(headers=headers, tls=tls, extra_body=self.extra_body)

    def _api_key(self) -> str | None:
        if self.api_key_file is not None:
            try:
                return self.api_key_file.read_text("utf-8").strip()
            except (OSError, UnicodeDecodeError) as exc:
                raise ModelsMisconfigured(f"the api_key_file of {self.name} cannot be read: {exc}") from exc
        if self.api_key_variable is None:
            return None
        try:
            return os.environ[self.api_key_variable]  # noqa: TID251  only the file knows its name
        except KeyError as exc:
            raise ModelsMisconfigured(
                f"{self.api_key_variable}, the api_key_variable of {self.name}, is not set"
            ) from exc

    @model_validator(mode="after")
    def _check_access(self) -> "ModelsFileEntry":
        if self.api_key_file is not None and self.api_key_variable is not None:
            raise ValueError("set `api_key_file` or `api_key_variable`, not both")
        if "authorization" in map(str.lower, self.headers):
            raise ValueError("the key is not written into this file: set `api_key_file` or `api_key_variable`")
        if ours := sorted(self.extra_body.keys() & OUR_FIELDS):
            raise ValueError(f"`extra_body` cannot set what the product sets: {', '.join(ours)}")
        return self

    @model_validator(mode="after")
    def _check_weight(self) -> "ModelsFileEntry":
        has_share = self.group in {"canary", "shadow"}
        if has_share and self.weight is None:
            raise ValueError(f"a {self.group} needs a `weight`: its share of the conversations, from 0 to below 1")
        if not has_share and self.weight is not None:
            raise ValueError("only a canary or a shadow has a `weight`")
        return self


class ModelsFile(RootModel[tuple[ModelsFileEntry, ...]], frozen=True):
    """The YAML of MODELS_FILE."""

    @model_validator(mode="after")
    def _check_groups(self) -> "ModelsFile":
        groups = [entry.group for entry in self.root]
        if "primary" not in groups:
            raise ValueError("one entry must be of the group `primary`")
        for group in ("canary", "shadow"):
            if groups.count(group) > 1:
                raise ValueError(f"at most one entry may be of the group `{group}`")
        if len({entry.name for entry in self.root}) < len(self.root):
            raise ValueError("every entry needs a name of its own: it is what `chatbot stop --model` takes")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the entries, by which they can be stopped."""
        return tuple(entry.name for entry in self.root)

    @property
    def primary(self) -> ModelsFileEntry:
        """The first of the primaries."""
        return next(entry for entry in self.root if entry.group == "primary")

    @property
    def shares(self) -> dict[Group, float]:
        """The shares of the conversations, in [0, 1), that the canary answers and that the shadow gets in addition."""
        return {entry.group: entry.weight for entry in self.root if entry.weight is not None}


class ModelSettings(BaseModel, frozen=True):
    """Where models are served: a MODELS_FILE, or LLM_URLS for one group."""

    models_file: Path | None = None
    llm_urls: _Urls = ()
    llm_tokenizer: Path | None = None
    llm_profile: str = "hosted"
    llm_model: str | None = None
    llm_chat_template_kwargs: Mapping[str, JsonValue] = {}
    llm_api_key: SecretStr | None = None
    llm_tls: TlsSettings = TlsSettings()
    tls: TlsFiles = TlsFiles()
    breaker: BreakerSettings = BreakerSettings()

    @model_validator(mode="after")
    def _check_source(self) -> "ModelSettings":
        if self.models_file is None and not self.llm_urls:
            raise ValueError("set MODELS_FILE or LLM_URLS")
        if self.models_file is not None and self.llm_urls:
            raise ValueError("set MODELS_FILE or LLM_URLS, not both")
        return self

    def read(self) -> ModelsFile:
        """Return the entries of the file, or the one entry of the LLM_ settings (blocking).

        Raises:
            ModelsMisconfigured: the file cannot be read or is not valid.
        """
        if self.models_file is None:
            single = self.llm_tls.model_dump() | {
                "name": "primary",
                "urls": self.llm_urls,
                "tokenizer": self.llm_tokenizer,
                "profile": self.llm_profile,
                "model": self.llm_model,
                "chat_template_kwargs": self.llm_chat_template_kwargs,
            }
            return ModelsFile.model_validate([single])
        try:
            file = ModelsFile.model_validate(yaml.safe_load(self.models_file.read_text("utf-8")))
            return ModelsFile(tuple(entry.over(self.tls) for entry in file.root))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as exc:
            raise ModelsMisconfigured(f"MODELS_FILE {self.models_file} cannot be read: {exc}") from exc
        except ValidationError as exc:
            errors = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'the file'}: {e['msg']}" for e in exc.errors())
            raise ModelsMisconfigured(
                f"MODELS_FILE {self.models_file}: {errors} (known groups: {', '.join(get_args(Group))})"
            ) from exc


class Member:
    """An endpoint in its group, with its breaker and its calls in flight; `entry` is its name in the MODELS_FILE."""

    def __init__(self, endpoint: Endpoint, group: Group, breaker: Breaker, *, entry: str = "") -> None:
        self.endpoint = endpoint
        self.group = group
        self.breaker = breaker
        self.entry = entry or group
        self.in_flight = 0
        self.checked = False
        """Whether its capabilities were detected since its breaker was last open."""
        self._try_out_at = math.inf  # by the event loop's time
        self._tried_out_at = -math.inf

    @property
    def able(self) -> Capabilities:
        """What its endpoint can do."""
        return self.endpoint.capabilities

    @property
    def context_tokens(self) -> int | None:
        """Prompt and answer together, as the endpoint reports."""
        return self.able.context_tokens

    @property
    def available(self) -> bool:
        """Whether it may be called now."""
        return self.breaker.available and not self.endpoint.stopped

    def schedule_try_out(self, now: float) -> None:
        """Have it tried out, since it has refused a question; seldom, since a customer may send many such questions."""
        self._try_out_at = max(now, self._tried_out_at + _TRY_OUT_EVERY)

    def begins_try_out(self, now: float) -> bool:
        """Return whether its scheduled try-out begins now (the event loop's time): true once."""
        if now < self._try_out_at or not self.available:
            return False
        self._try_out_at, self._tried_out_at = math.inf, now
        return True


@dataclass(frozen=True, slots=True)
class Target:
    """Where a call goes: the member that answers it, and the breaker's permit for it."""

    member: Member
    permit: Permit


class RetryBudget:
    """Keeps retries below a tenth of the requests, with some saved up for bursts of failures: a token bucket."""

    def __init__(self) -> None:
        self._saved = _MOST_SAVED_RETRIES

    def add_request(self) -> None:
        """Count a request."""
        self._saved = min(_MOST_SAVED_RETRIES, self._saved + _RETRY_SHARE)

    def take(self) -> bool:
        """Return whether a retry may be made, and count it."""
        if self._saved < 1:
            return False
        self._saved -= 1
        return True


class RandomSource(Protocol):
    """The part of `random.Random` that `Pool.pick` needs."""

    def sample(self, population: Sequence[Member], k: int) -> list[Member]: ...


class Pool:
    """The members of all groups."""

    def __init__(
        self,
        members: Sequence[Member],
        *,
        shares: Mapping[Group, float] | None = None,
        prefill: float = math.inf,
        randomness: RandomSource | None = None,
    ) -> None:
        """Take the members; `shares` are the shares of the conversations that the canary and the shadow get.

        `prefill` is the rate of one primary, which is promised where no endpoint is known yet.
        """
        self.members = tuple(members)
        self._stopped: frozenset[str] = frozenset()
        self._shares = shares or {}
        self._prefill = prefill
        self.retries = RetryBudget()
        self._randomness = randomness or random.SystemRandom()

    def add(self, member: Member) -> None:
        """Let an endpoint get calls, unless its entry is stopped."""
        if member.entry in self._stopped:
            member.endpoint.stop()
        self.members = (*self.members, member)

    def remove(self, member: Member) -> None:
        """Let an endpoint get no more calls; those in progress go on."""
        self.members = tuple(m for m in self.members if m is not member)

    def stop(self, entries: Collection[str]) -> None:
        """Stop the endpoints of these entries, with the calls in progress, and resume all others."""
        self._stopped = frozenset(entries)
        for member in self.members:
            if member.entry not in entries:
                member.endpoint.resume()
            elif not member.endpoint.stopped:
                log.warning("model_endpoint_stopped", endpoint=member.endpoint.name)
                member.endpoint.stop()

    def group_order(self, conversation_id: str) -> tuple[Group, ...]:
        """Return the groups that may answer the conversation, in the order in which they are tried."""
        in_canary = self.in_share(conversation_id, "canary")
        return ("canary", "primary", "fallback") if in_canary else ("primary", "fallback")

    def in_share(self, conversation_id: str, group: Group) -> bool:
        """Return whether the conversation is in the group's share of all conversations; the same on every process."""
        return int.from_bytes(_affinity(conversation_id, group), "big") / 2**64 < self._shares.get(group, 0.0)

    @property
    def serving(self) -> tuple[Member, ...]:
        """The members whose answers customers see and that are not stopped."""
        return tuple(m for m in self.members if m.group in SERVING_GROUPS and not m.endpoint.stopped)

    def pick(
        self, conversation_id: str, *, group: Group, avoid: Collection[Member] = (), override: bool = False
    ) -> Target | None:
        """Return the target of a call, or None where no member of the group is available.

        `override` ignores the breakers.
        """
        candidates = [
            m for m in self._of(group) if m not in avoid and (m.available or (override and not m.endpoint.stopped))
        ]
        if not candidates:
            return None
        member = max(candidates, key=lambda m: _affinity(conversation_id, m.endpoint.name))
        most_calls = math.ceil(_LOAD_BOUND * (sum(m.in_flight for m in candidates) + 1) / len(candidates))
        if member.in_flight + 1 > most_calls:
            others = [m for m in candidates if m is not member]
            member = min(self._randomness.sample(others, min(2, len(others))), key=lambda m: m.in_flight)
        permit = member.breaker.override() if override else member.breaker.permit()
        return None if permit is None else Target(member, permit)

    def has_alternative(self, member: Member) -> bool:
        """Return whether another member of the group could be called."""
        others = (m for m in self._of(member.group) if m is not member and not m.endpoint.stopped)
        return any(m.breaker.state is BreakerState.CLOSED for m in others)

    @property
    def prefill_rate(self) -> float:
        """Prompt tokens per second that the endpoints of the first group read together, by their profiles."""
        first = next((group for group in SERVING_GROUPS if any(self._of(group))), None)
        if first is None:
            return self._prefill
        return sum(member.endpoint.deadlines.prefill for member in self._of(first))

    def retry_after(self) -> float:
        """Return the seconds until an endpoint may be called again."""
        return min((m.breaker.retry_after for m in self.serving), default=_ALL_STOPPED_SECONDS)

    def _of(self, group: Group) -> Iterator[Member]:
        return (member for member in self.members if member.group == group)


def _affinity(conversation_id: str, name: str) -> bytes:
    return blake2b(f"{conversation_id}\0{name}".encode(), digest_size=8).digest()
