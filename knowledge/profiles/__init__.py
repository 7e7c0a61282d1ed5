"""Profiles: a file about a model on a kind of machine, of which who serves it and who asks it each read a part.

Those of this package have names; anybody's is named by its path, which ends with .yaml. `llm_server/profile.py` reads
what vLLM needs, the chat API the `deadlines` and `answer`. `hosted` and `scripted` have nothing else: others serve
these.
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, Field, ValidationError

PROFILES = Path(__file__).parent

__all__ = [
    "PROFILES",
    "AnswerMode",
    "Deadlines",
    "UnknownProfile",
    "first_reason",
    "profile_fields",
    "profile_path",
    "read_answer_mode",
    "read_deadlines",
]

_Positive = Annotated[float, Field(gt=0)]


class UnknownProfile(Exception):
    """There is no such profile, or its file is invalid; the message names the choices or the field."""


class AnswerMode(StrEnum):
    """Whose words an answer consists of: small models copy well, large ones write well (docs/decisions/0029)."""

    QUOTE = "quote"
    """the bank's own; a model chooses where the best units are close"""
    WRITTEN = "written"
    """the model's own, where the checks let them pass"""


class Deadlines(BaseModel, frozen=True, extra="forbid"):
    """The deadlines of a call, which follow from the speed of the endpoint's hardware; all but `prefill` in seconds."""

    prefill: _Positive
    """Prompt tokens that the endpoint reads per second: of one uncached prompt, rather low than high."""
    answer: _Positive
    """For a whole answer."""
    between_tokens: _Positive = 10.0
    base: _Positive = 2.0
    """For the first token of an empty prompt."""

    def first_token(self, prompt_tokens: int) -> float:
        """Return the seconds allowed until the first token."""
        return self.base + 3 * prompt_tokens / self.prefill

    def slow_first_token(self, prompt_tokens: int) -> float:
        """Return the seconds after which a first token counts as slow: three quarters of its deadline."""
        return 0.75 * self.first_token(prompt_tokens)


def profile_path(name: str) -> Path:
    """Return the file of a profile's name, or the path that it is.

    Raises:
        UnknownProfile: there is no profile of that name.
    """
    if name.endswith(".yaml"):
        return Path(name)
    known = sorted(path.stem for path in PROFILES.glob("*.yaml"))
    if name not in known:
        raise UnknownProfile(
            f"There is no profile {name!r}: choose from {', '.join(known)}, or give the path of a .yaml file."
        )
    return PROFILES / f"{name}.yaml"


def profile_fields(path: Path) -> dict[str, object]:
    """Return the fields of a profile's file (blocking).

    Raises:
        UnknownProfile: it cannot be read, or is not a YAML mapping.
    """
    try:
        fields = yaml.load(path.read_text("utf-8"), yaml.CSafeLoader)
    except OSError as exc:
        raise UnknownProfile(f"The profile {path} cannot be read: {exc.strerror}") from exc
    except (yaml.YAMLError, UnicodeDecodeError) as exc:
        raise UnknownProfile(f"The profile {path.name} is wrong: {' '.join(str(exc).split())}") from exc
    if not isinstance(fields, dict):
        raise UnknownProfile(f"The profile {path.name} is wrong: it has no fields")
    return fields


def read_deadlines(name: str) -> Deadlines:
    """Return the deadlines of a profile (blocking).

    Raises:
        UnknownProfile: there is no such profile, or it has none.
    """
    path = profile_path(name)
    fields = profile_fields(path)
    if "deadlines" not in fields:
        raise UnknownProfile(f"The profile {path.name} has no `deadlines`, which the chat API needs")
    try:
        return Deadlines.model_validate(fields["deadlines"])
    except ValidationError as exc:
        raise UnknownProfile(f"The profile {path.name} is wrong: deadlines.{first_reason(exc)}") from exc


def read_answer_mode(name: str) -> AnswerMode:
    """Return the `answer` of a profile (blocking): `quote` unless it says otherwise.

    Raises:
        UnknownProfile: there is no such profile, or it names another way.
    """
    path = profile_path(name)
    try:
        return AnswerMode(str(profile_fields(path).get("answer", AnswerMode.QUOTE)))
    except ValueError as exc:
        raise UnknownProfile(f"The profile {path.name} is wrong: answer: {exc}, only {', '.join(AnswerMode)}") from exc


def first_reason(exc: ValidationError) -> str:
    """Return the first field that is wrong, and why."""
    error = exc.errors()[0]
    return f"{'.'.join(str(part) for part in error['loc'])}: {error['msg']}"
