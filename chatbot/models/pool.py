"""Which endpoint answers: groups of endpoints, the conversation's home, and whether each may be called.

A canary gets its share of the conversations, always the same ones; the others begin with a primary. Where neither can
answer, the fallback does. A shadow is never among them: it is asked once more what they were asked (`shadow.py`).

A conversation stays with its home (rendezvous hashing: its prefix is cached there) until the home has more than its
share of the calls; then the idler of two others, chosen at random, takes the call. An endpoint whose breaker is open
does not count; its conversations spread over the rest and come home afterwards.
"""

import math
import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Literal, Protocol, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, Field, HttpUrl, RootModel, SecretStr, ValidationError, model_validator

from chatbot.models.breaker import Breaker, BreakerSettings, BreakerState, Permit
from chatbot.models.endpoint import Endpoint, Speeds
from chatbot.tokenizer import Tokenizer

Group = Literal["primary", "canary", "fallback", "shadow"]
SERVING_GROUPS: tuple[Group, ...] = ("primary", "canary", "fallback")
"""Those that answer customers."""
ProfileName = Literal["cpu", "cpu-small", "cpu-tiny", "l4", "a100", "h100", "scripted"]

# Prefill in tokens a second of one cold prompt. CPU: measured on two cores (facts.md section 2), the answer's time from
# its tokens a second with a few streams at once. GPU: low estimates, so that deadlines are late rather than early.
PROFILES: Mapping[ProfileName, Speeds] = {
    "cpu": Speeds(prefill=160, whole=300),
    "cpu-small": Speeds(prefill=600, whole=180),
    "cpu-tiny": Speeds(prefill=1_000, whole=120),
    "l4": Speeds(prefill=2_500, whole=60),
    "a100": Speeds(prefill=8_000, whole=60),
    "h100": Speeds(prefill=15_000, whole=60),
    # 8 / 10 / 60 s whatever the prompt: the scripted server's first token has no prefill (reliability.md).
    "scripted": Speeds(prefill=math.inf, at_once=8, whole=60),
}

# An endpoint may carry a quarter more than the mean before conversations leave their home.
_BOUND = 1.25
# What a customer is told to wait when every model is stopped: nobody knows for how long.
_ALL_STOPPED = 60.0


class ModelsMisconfigured(Exception):
    """The boot stops: what is set cannot serve; the message says what to set."""


def _split(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


_Urls = Annotated[tuple[HttpUrl, ...], BeforeValidator(_split)]


class ModelsFileEntry(BaseModel, frozen=True, extra="forbid"):
    """One entry of the MODELS_FILE: endpoints of one model on machines of one profile."""

    name: str
    urls: _Urls = Field(min_length=1)
    group: Group = "primary"
    weight: float | None = Field(None, ge=0, lt=1, description="a canary's or a shadow's share of the conversations")
    tokenizer: Path
    profile: ProfileName
    model: str | None = Field(None, description="name to ask for; otherwise the first that /v1/models tells")

    @model_validator(mode="after")
    def _weighed_if_on_trial(self) -> "ModelsFileEntry":
        on_trial = self.group in {"canary", "shadow"}
        if on_trial and self.weight is None:
            raise ValueError(f"a {self.group} needs a `weight`: its share of the conversations, from 0 to below 1")
        if not on_trial and self.weight is not None:
            raise ValueError("only a canary or a shadow has a `weight`")
        return self


class ModelsFile(RootModel[tuple[ModelsFileEntry, ...]], frozen=True):
    """The YAML behind MODELS_FILE. Primaries share one tokenizer: an answer moves between them token by token."""

    @model_validator(mode="after")
    def _what_can_serve(self) -> "ModelsFile":
        groups = [entry.group for entry in self.root]
        if "primary" not in groups:
            raise ValueError("one entry must be of the group `primary`")
        for group in ("canary", "shadow"):
            if groups.count(group) > 1:
                raise ValueError(f"at most one entry may be of the group `{group}`")
        if len({entry.name for entry in self.root}) < len(self.root):
            raise ValueError("every entry needs a name of its own: it is what `chatbot stop --model` takes")
        if len({entry.tokenizer for entry in self.root if entry.group == "primary"}) > 1:
            raise ValueError("all primaries must name the same tokenizer")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """What each entry is called, and so what can be stopped."""
        return tuple(entry.name for entry in self.root)

    @property
    def tokenizer(self) -> Path:
        """The folder of the tokenizer that the primaries share."""
        return next(entry.tokenizer for entry in self.root if entry.group == "primary")

    @property
    def shares(self) -> dict[Group, float]:
        """Which share of the conversations begins with the canary, and which the shadow is asked about."""
        return {entry.group: entry.weight for entry in self.root if entry.weight is not None}


class ModelSettings(BaseModel, frozen=True):
    """Where models are served: a MODELS_FILE, or LLM_URLS + LLM_TOKENIZER + LLM_PROFILE for one group."""

    models_file: Path | None = None
    llm_urls: _Urls = ()
    llm_tokenizer: Path | None = None
    llm_profile: ProfileName | None = None
    llm_model: str | None = None
    llm_api_key: SecretStr | None = None
    breaker: BreakerSettings = BreakerSettings()

    @model_validator(mode="after")
    def _one_way(self) -> "ModelSettings":
        single = (bool(self.llm_urls), self.llm_tokenizer is not None, self.llm_profile is not None)
        if self.models_file is None and not all(single):
            raise ValueError("set MODELS_FILE, or LLM_URLS and LLM_TOKENIZER (a folder) and LLM_PROFILE")
        if self.models_file is not None and self.llm_urls:
            raise ValueError("set MODELS_FILE or LLM_URLS, not both")
        return self

    def read(self) -> ModelsFile:
        """Return the groups, from the file or from the LLM_ settings (blocking; at boot).

        Raises:
            ModelsMisconfigured: the file cannot be read or names what we do not know.
        """
        if self.models_file is None:
            single = {"urls": self.llm_urls, "profile": self.llm_profile, "model": self.llm_model}
            return ModelsFile.model_validate([single | {"name": "primary", "tokenizer": self.llm_tokenizer}])
        try:
            return ModelsFile.model_validate(yaml.safe_load(self.models_file.read_text("utf-8")))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as exc:
            raise ModelsMisconfigured(f"MODELS_FILE {self.models_file} cannot be read: {exc}") from exc
        except ValidationError as exc:
            wrong = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'the file'}: {e['msg']}" for e in exc.errors())
            raise ModelsMisconfigured(
                f"MODELS_FILE {self.models_file}: {wrong} (known groups: {', '.join(get_args(Group))})"
            ) from exc


class Member:
    """An endpoint in its group, with its breaker and the calls it is answering now.

    `entry` is its name in the MODELS_FILE; `tokenizer` is given where it is not the primaries'.
    """

    def __init__(
        self, endpoint: Endpoint, group: Group, breaker: Breaker, *, entry: str = "", tokenizer: Tokenizer | None = None
    ) -> None:
        self.endpoint = endpoint
        self.group = group
        self.breaker = breaker
        self.entry = entry or group
        self.tokenizer = tokenizer
        self.in_flight = 0
        self.checked = False  # its tokenizer was compared with what we have since it was last away
        self.context_tokens: int | None = None  # prompt and answer together, as it told

    @property
    def willing(self) -> bool:
        """Whether it may be called now."""
        return self.breaker.willing and not self.endpoint.stopped


@dataclass(frozen=True, slots=True)
class Target:
    """One call on its way: who answers it, by whose leave."""

    member: Member
    permit: Permit


class RetryBudget:
    """Keeps retries under a tenth of the requests (reliability.md), with a few saved up for a bad moment."""

    def __init__(self, *, share: float = 0.1, most: float = 10.0) -> None:
        self._share = share
        self._most = most
        self._saved = most

    def asked(self) -> None:
        """Count a request."""
        self._saved = min(self._most, self._saved + self._share)

    def take(self) -> bool:
        """Return whether a retry may be made, and count it."""
        if self._saved < 1:
            return False
        self._saved -= 1
        return True


class RandomSource(Protocol):
    """The part of `random.Random` that picking needs."""

    def sample(self, population: Sequence[Member], k: int) -> list[Member]: ...


class Pool:
    """The members of all groups."""

    def __init__(
        self,
        members: Sequence[Member],
        *,
        shares: Mapping[Group, float] | None = None,
        chance: RandomSource | None = None,
    ) -> None:
        """`shares` are those of the conversations that a canary and a shadow get."""
        self.members = tuple(members)
        self._shares = shares or {}
        self.retries = RetryBudget()
        self._chance = chance or random.SystemRandom()

    def groups(self, conversation_id: str) -> tuple[Group, ...]:
        """Return the groups that a conversation may be answered by, in the order in which they are asked."""
        return (
            ("canary", "primary", "fallback") if self.in_share(conversation_id, "canary") else ("primary", "fallback")
        )

    def in_share(self, conversation_id: str, group: Group) -> bool:
        """Return whether a conversation is of those that a canary or a shadow gets: always the same ones."""
        return int.from_bytes(_affinity(conversation_id, group), "big") / 2**64 < self._shares.get(group, 0.0)

    @property
    def serving(self) -> tuple[Member, ...]:
        """The members that customers hear, unless they are stopped."""
        return tuple(m for m in self.members if m.group in SERVING_GROUPS and not m.endpoint.stopped)

    def pick(
        self, conversation_id: str, *, group: Group, avoid: Collection[Member] = (), overrule: bool = False
    ) -> Target | None:
        """Return the leg to take, or None when nobody of the group may be called; `overrule` minds no breaker."""
        able = [m for m in self._of(group) if m not in avoid and (m.willing or (overrule and not m.endpoint.stopped))]
        if not able:
            return None
        member = max(able, key=lambda m: _affinity(conversation_id, m.endpoint.name))
        share = math.ceil(_BOUND * (sum(m.in_flight for m in able) + 1) / len(able))
        if member.in_flight + 1 > share:
            others = [m for m in able if m is not member]
            member = min(self._chance.sample(others, min(2, len(others))), key=lambda m: m.in_flight)
        permit = member.breaker.overruled() if overrule else member.breaker.admit()
        return None if permit is None else Target(member, permit)

    def alternatives(self, member: Member) -> bool:
        """Return whether somebody else of the member's group could be called."""
        others = (m for m in self._of(member.group) if m is not member and not m.endpoint.stopped)
        return any(m.breaker.state is BreakerState.CLOSED for m in others)

    @property
    def prefill_rate(self) -> float:
        """How many prompt tokens a second the endpoints of the first group read together, by their profiles."""
        first = next(group for group in SERVING_GROUPS if any(self._of(group)))
        return sum(member.endpoint.speeds.prefill for member in self._of(first))

    def retry_after(self) -> float:
        """Return in how many seconds an endpoint may be called again."""
        return min((m.breaker.retry_after for m in self.serving), default=_ALL_STOPPED)

    def _of(self, group: Group) -> Iterator[Member]:
        return (member for member in self.members if member.group == group)


def _affinity(conversation_id: str, name: str) -> bytes:
    return blake2b(f"{conversation_id}\0{name}".encode(), digest_size=8).digest()
